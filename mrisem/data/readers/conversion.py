"""Conversion of scans of other formats to fastMRI's layout, once, into the cache.

All other code reads this layout only. A converted file stays valid as long as its source files keep
their size, times of change and inode, and options and code of the reader are the same. Hashing the
content of the sources instead would read gigabytes at each start.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import torch

from mrisem.data.batches import magnitude
from mrisem.data.contents import open_scan
from mrisem.data.index import FileIndex
from mrisem.data.readers.mrd_header import moved_to_crop
from mrisem.data.readers.noise import whiten
from mrisem.data.readers.registry import NATIVE, code_of, find_reader, readers, suffixes
from mrisem.data.readers.scan import Reader, ReadOptions, Scan
from mrisem.data.volumes import inspect_volume
from mrisem.errors import InputError
from mrisem.files import held, remove_partial, whole
from mrisem.physics.fourier import center_crop

CONVERTED = "converted"  # folder of converted files in the cache
SOURCE = "converted_from"  # attribute with the state of the files from which a scan was converted


@dataclass(frozen=True)
class Conversion:
    """Converter of scans of other formats.

    Args:
        folder: cache of converted files.
        options: options of the readers.
    """

    folder: Path
    options: ReadOptions

    def stored(self, path: Path, index: FileIndex | None = None) -> Path:
        """Return the file that holds a scan in fastMRI's layout: itself, or its conversion.

        Args:
            path: file of the scan.
            index: facts that tell which HDF5 files have that layout, without opening them again.

        Raises:
            InputError: when the scan is bad.
        """
        if index is not None and path.suffix.lower() in NATIVE:
            # with other readers installed, the same file may belong to one of them
            names = ", ".join(type(reader).__name__ for reader in readers())
            fact = f"native beside {names}, prewhiten {self.options.prewhiten}"
            if index.fact(path, fact, lambda _: self._reader(path) is None):
                return path
        reader = self._reader(path)
        if reader is None:
            return path
        converted, source = self._converted(path), self._source(path, reader)
        if _is_made_from(converted, source):
            return converted
        with held(converted.parent):
            # another process may have converted it while this one waited for the lock
            if not _is_made_from(converted, source):
                remove_partial(converted.parent)
                size = sum(file.stat().st_size for file in reader.files(path)) / 1e6
                sys.stderr.write(f"mrisem: converts {path.name} ({size:.0f} MB)\n")
                _write(converted, reader.read(path, self.options), path, source, self.options)
        return converted

    def targets(self, folder: Path) -> Path:
        """Return a folder that holds each scan of a data folder in fastMRI's layout.

        It is the data folder itself if all files have that layout. Otherwise it is a folder of the
        cache, with links to the files that need no conversion.
        """
        endings, stored = suffixes(), {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in endings and path.name[:1] != ".":
                with suppress(InputError):  # reported for the scans that are scored, and only there
                    stored[path] = self.stored(path)
        if all(path == file for path, file in stored.items()):
            return folder
        for path in (path for path, file in stored.items() if path == file):
            link = self._converted(path)
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
        return self._converted(folder / "any").parent

    def _reader(self, path: Path) -> Reader | None:
        """See `find_reader`."""
        return find_reader(path, self.options.prewhiten)

    def _converted(self, path: Path) -> Path:
        """Return the converted file of a scan."""
        facts = json.dumps([str(path.parent.absolute()), asdict(self.options)])
        name = hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()[:24]
        # Folder and file keep their names: messages show them, and singlecoil_<split> is read.
        return self.folder / name / path.parent.name / path.name

    def _source(self, path: Path, reader: Reader) -> str:
        """Return the state of source files and reader that a conversion depends on, as text."""
        states = [file.stat() for file in reader.files(path)]
        facts = [[s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for s in states]
        return json.dumps([facts, code_of(reader)])


def _is_made_from(converted: Path, source: str) -> bool:
    """Return whether a converted file exists and was made from this state of its source."""
    if not converted.is_file():
        return False
    try:
        with open_scan(converted) as file:
            return file.attrs.get(SOURCE) == source
    except InputError as error:
        warnings.warn(f"{error}; it is converted anew", stacklevel=3)
        return False


def _write(converted: Path, scan: Scan, path: Path, source: str, options: ReadOptions) -> None:
    """Write a scan in fastMRI's layout; a fully sampled one gets targets.

    Args:
        converted: file to write.
        scan: the scan.
        path: file of the scan, for messages.
        source: state of the source files.
        options: options of the readers.
    """
    _check(scan, path)
    # the mask first: whitening mixes coils, and may fill samples that are zero in one coil only
    scan = replace(scan, mask=_sampled(scan, options))
    scan = whiten(scan, path) if options.prewhiten else scan
    if (need := 1.5 * scan.kspace.nbytes) > (free := shutil.disk_usage(converted.parent).free):
        raise InputError(
            f"the conversion of {path} needs {need / 1e9:.1f} GB of free disk, got "
            f"{free / 1e9:.1f} GB in {converted.parent}; set another paths.cache"
        )
    converted.unlink(missing_ok=True)  # a link, if the scan needed no conversion before
    with whole(converted) as partial:
        with h5py.File(partial, "w", libver="latest") as file:
            _write_arrays(file, scan)
            file.attrs[SOURCE] = source
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are given when the scan is read
            try:
                # size of the images, read like that of any file in this layout
                crop = inspect_volume(partial, options.kspace_center).crop
            except InputError as error:
                raise InputError(str(error).replace(str(partial), str(path))) from error
        with h5py.File(partial, "r+", libver="latest") as file:
            if scan.target is None and scan.mask is None:
                file["reconstruction_rss"] = _targets(scan.kspace, crop, options)
            if scan.matrix_affine is not None:
                size = scan.kspace.shape[2], scan.kspace.shape[3]
                file.attrs["affine"] = moved_to_crop(scan.matrix_affine, size, crop)


def _write_arrays(file: h5py.File, scan: Scan) -> None:
    """Write arrays and attributes of a scan, without time stamps."""
    arrays = {
        "kspace": scan.kspace,
        "mask": scan.mask,
        "reconstruction_rss": scan.target,
        "sensitivity_maps": scan.sensitivity_maps,
        "ismrmrd_header": np.bytes_(scan.header) if scan.header else None,
    }
    for name, values in arrays.items():
        if values is not None:
            file.create_dataset(name, data=values, track_times=False)
    if scan.affine is not None:
        file.attrs["affine"] = scan.affine
    for name in ("acquisition", "patient_id", "simulation"):
        if text := getattr(scan, name):
            file.attrs[name] = text


def _check(scan: Scan, path: Path) -> None:
    """Raise InputError for arrays that do not fit together.

    `mrisem.data.volumes` checks the written file.
    """
    kspace, maps, affine = scan.kspace, scan.sensitivity_maps, scan.affine
    if kspace.dtype != np.complex64 or kspace.ndim != 4 or 0 in kspace.shape:
        raise InputError(
            f"a reader must give kspace (slice, coil, y, x) complex64, got {kspace.dtype} "
            f"{kspace.shape} of {path}; correct the file or data.axes"
        )
    if maps is not None and maps.shape != kspace.shape:
        raise InputError(
            f"sensitivity_maps must have the shape of kspace {kspace.shape}, got {maps.shape} in "
            f"{path}; rewrite or remove them"
        )
    if affine is not None and (affine.shape != (4, 4) or not np.isfinite(affine).all()):
        raise InputError(
            f"affine must be 4 x 4 and finite, got {affine.shape} in {path}; remove it"
        )


def _sampled(scan: Scan, options: ReadOptions) -> np.ndarray | None:
    """Return the mask ``(x,)`` or ``(y, x)`` of an undersampled scan; None: it is fully sampled.

    Without a mask in the file, zeros among the samples show undersampling. Rows of zeros, as in
    partial echoes, and columns outside all samples do not.
    """
    if scan.mask is not None:
        return scan.mask
    sampled = (scan.kspace != 0).any((0, 1))
    if options.kspace_center == "corner":
        sampled = np.fft.fftshift(sampled)
    rows, columns = sampled.any(1), sampled.any(0)
    if not columns.any():
        return None
    if not (sampled == rows[:, None] & columns).all():  # points, not whole columns
        return sampled
    first, last = np.flatnonzero(columns)[[0, -1]]
    return None if columns[first : last + 1].all() else columns


def _targets(kspace: np.ndarray, crop: tuple[int, int], options: ReadOptions) -> np.ndarray:
    """Compute root-sum-of-squares images ``(slice, Y, X)``, the targets of fastMRI."""
    images = []
    for part in kspace:  # one slice at a time: a volume's images need twice its memory
        if options.kspace_center == "corner":
            part = np.fft.fftshift(part, axes=(-2, -1))
        images.append(center_crop(magnitude(torch.from_numpy(np.ascontiguousarray(part))), crop))
    return torch.stack(images).numpy()
