"""Scans of other formats, written once in fastMRI's layout into the cache.

Everything behind `Conversion.stored` so reads one layout. A converted file is used again as long
as the files that it was made from have the same size, times of change and inode, and options and
code of the reader are the same. Hashing their content instead would read gigabytes at each start.
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

CONVERTED = "converted"  # folder of the cache
SOURCE = "converted_from"  # attribute: what a converted file was made from


@dataclass(frozen=True)
class Conversion:
    """Converts scans of other formats.

    Args:
        folder: cache of converted files.
        options: what readers are told.
    """

    folder: Path
    options: ReadOptions

    def stored(self, path: Path, index: FileIndex | None = None) -> Path:
        """Return the file that holds a scan in fastMRI's layout: itself, or its conversion.

        Args:
            path: the scan.
            index: knows which HDF5 files have that layout, without opening them again.

        Raises:
            InputError: when it is bad.
        """
        if index is not None and path.suffix.lower() in NATIVE:
            whose = ", ".join(type(reader).__name__ for reader in readers())
            fact = f"native beside {whose}, prewhiten {self.options.prewhiten}"
            if index.fact(path, fact, lambda _: self._reader(path) is None):
                return path
        reader = self._reader(path)
        if reader is None:
            return path
        place, source = self._place(path), self._source(path, reader)
        if _made_from(place, source):
            return place
        with held(place.parent):
            if not _made_from(place, source):  # by a process that we waited for
                remove_partial(place.parent)
                size = sum(file.stat().st_size for file in reader.files(path)) / 1e6
                sys.stderr.write(f"mrisem: converts {path.name} ({size:.0f} MB)\n")
                _write(place, reader.read(path, self.options), path, source, self.options)
        return place

    def targets(self, folder: Path) -> Path:
        """Return a folder that holds each scan of a data folder in fastMRI's layout.

        It is the data folder itself where all have that layout; else the cache's, with links to
        those that have.
        """
        ends, stored = suffixes(), {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in ends and path.name[:1] != ".":
                with suppress(InputError):  # said of those that are scored, when they are
                    stored[path] = self.stored(path)
        if all(path == place for path, place in stored.items()):
            return folder
        for path in (path for path, place in stored.items() if path == place):
            link = self._place(path)
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
        return self._place(folder / "any").parent

    def _reader(self, path: Path) -> Reader | None:
        return find_reader(path, self.options.prewhiten)

    def _place(self, path: Path) -> Path:
        """Converted file: it has the scan's own name, so that messages name that."""
        facts = json.dumps([str(path.parent.absolute()), asdict(self.options)])
        name = hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()[:24]
        return self.folder / name / path.parent.name / path.name

    def _source(self, path: Path, reader: Reader) -> str:
        """What decides the content of a conversion, as text."""
        states = [file.stat() for file in reader.files(path)]
        facts = [[s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for s in states]
        return json.dumps([facts, code_of(reader)])


def _made_from(place: Path, source: str) -> bool:
    if not place.is_file():
        return False
    try:
        with open_scan(place) as file:
            return file.attrs.get(SOURCE) == source
    except InputError as error:
        warnings.warn(f"{error}; it is converted anew", stacklevel=3)
        return False


def _write(place: Path, scan: Scan, path: Path, source: str, options: ReadOptions) -> None:
    """Write a scan in fastMRI's layout, with targets where it is fully sampled."""
    _check(scan, path)
    scan = replace(scan, mask=_sampled(scan, options))
    scan = whiten(scan, path) if options.prewhiten else scan
    if (need := 1.5 * scan.kspace.nbytes) > (free := shutil.disk_usage(place.parent).free):
        raise InputError(
            f"the conversion of {path} needs {need / 1e9:.1f} GB, {place.parent} has "
            f"{free / 1e9:.1f} GB free; choose another paths.cache"
        )
    place.unlink(missing_ok=True)  # a link to what had fastMRI's layout before
    with whole(place) as partial:
        with h5py.File(partial, "w", libver="latest") as file:
            _write_arrays(file, scan)
            file.attrs[SOURCE] = source
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said where the scan is read
            try:
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
    """Write what the scan has, without time stamps."""
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
    """Refuse what no layout could hold; `mrisem.data.volumes` checks the rest."""
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
    """Mask of an undersampled scan; one without a mask is so where zeros lie among its samples.

    Rows that are zero throughout, as of partial echoes, and columns outside all samples do not
    count as left out.
    """
    if scan.mask is not None:
        return scan.mask
    sampled = (scan.kspace != 0).any((0, 1))
    if options.kspace_center == "corner":
        sampled = np.fft.fftshift(sampled)
    rows, columns = sampled.any(1), sampled.any(0)
    if not columns.any():
        return None
    if not (sampled == rows[:, None] & columns).all():
        return sampled
    first, last = np.flatnonzero(columns)[[0, -1]]
    return None if columns[first : last + 1].all() else columns


def _targets(kspace: np.ndarray, crop: tuple[int, int], options: ReadOptions) -> np.ndarray:
    """``(slice, Y, X)`` root-sum-of-squares images, fastMRI's targets."""
    images = []
    for each in kspace:
        if options.kspace_center == "corner":
            each = np.fft.fftshift(each, axes=(-2, -1))
        images.append(center_crop(magnitude(torch.from_numpy(np.ascontiguousarray(each))), crop))
    return torch.stack(images).numpy()
