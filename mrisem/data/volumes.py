"""Facts about a file in fastMRI's layout, read without its k-space."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from mrisem.data.arrays import check_axes, kspace_dataset, kspace_shape, narrowed, target_shape
from mrisem.data.contents import as_complex64
from mrisem.data.geometry import Affine, affine_of_voxels, as_affine, read_affine
from mrisem.data.header import complete_header, header_bytes, read_header
from mrisem.data.index import FileIndex
from mrisem.errors import InputError

UNNAMED = "unnamed"
"""Acquisition of a file that names no acquisition."""

FROM_IMAGES = "simulated from images"
"""Beginning of the attribute ``simulation`` of scans made by `mrisem simulate source=...`."""

Center = Literal["middle", "corner"]
"""Position of the zero frequency: index ``n // 2`` of both axes, as in fastMRI, or index 0."""


@dataclass(frozen=True)
class ScanContent:
    """Small part of a scan that tells it apart from others, whatever its file's name and times.

    Args:
        subject: name of the subject.
        shape: ``(slice, coil, y, x)`` of the k-space.
        header: SHA-256 of the ISMRMRD header's bytes; empty without a header.
        kspace: SHA-256 of the central row of k-space of every slice, as complex64.
    """

    subject: str
    shape: tuple[int, int, int, int]
    header: str
    kspace: str


@dataclass(frozen=True)
class VolumeInfo:
    """Facts about one file.

    Args:
        path: path of the HDF5 file.
        acquisition: fastMRI's name of the sequence, or `UNNAMED`.
        subject: attribute ``patient_id``, or the stem of the file's name without one.
        shape: ``(slice, coil, y, x)`` of its k-space; a single-coil file counts as one coil.
        padding: first acquired phase-encode column and the column after the last.
        crop: ``(Y, X)`` of targets and reconstructions: the target's size, else the header's
            reconSpace.
        kspace_center: position of the zero frequency in the file.
        has_patient_id: whether the file names its subject.
        simulation: text of the file on how it was simulated; empty without one.
        affine: matrix that maps (column, row, slice) of the images to mm to the right, front and
            head (RAS+), from the attribute ``affine`` or else from the header's sizes (see
            ``placed``); None: the file states neither.
        placed: whether the file states the position of its voxels; a header states only their size.
        index: facts that were read of the file before.
        converted: file with the same scan in fastMRI's layout; None: the file has that layout.
    """

    path: Path
    acquisition: str
    subject: str
    shape: tuple[int, int, int, int]
    padding: tuple[int, int]
    crop: tuple[int, int]
    kspace_center: Center = "middle"
    has_patient_id: bool = True
    simulation: str = ""
    affine: Affine | None = None
    placed: bool = False
    index: FileIndex = field(default_factory=FileIndex, compare=False, repr=False)
    converted: Path | None = field(default=None, compare=False, repr=False)

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def seed_name(self) -> str:
        """Name that seeds the draw of a mask."""
        # a scan has the same mask in each format: a converted one counts by its HDF5 name
        return self.file if self.converted is None else f"{self.path.stem}.h5"

    @property
    def stored(self) -> Path:
        """HDF5 file in fastMRI's layout that holds the scan."""
        return self.converted or self.path

    @property
    def n_slices(self) -> int:
        """Number of slices in the file."""
        return self.shape[0]

    @cached_property
    def content(self) -> ScanContent:
        """Content that tells the scan apart from others; reads one row of each slice.

        Raises:
            InputError: when the file cannot be read.
        """
        digests = self.index.fact(self.stored, "content", self._hash_lines)
        return ScanContent(self.subject, self.shape, **digests)

    @property
    def middle(self) -> str:
        """SHA-256 of the attributes and the k-space of the middle slice.

        Raises:
            InputError: when the file cannot be read.
        """
        digest: str = self.index.fact(self.stored, "middle", self._hash_middle)
        return digest

    def _hash_lines(self, file: h5py.File) -> dict[str, str]:
        """Hash the header, and the central row of k-space of every slice."""
        header = header_bytes(file)
        rows = hashlib.sha256()
        kspace = kspace_dataset(file, self.path)
        for index in range(self.n_slices):
            # strong signal and its noise lie there: no two scans have the same samples
            row = kspace[index, ..., self.shape[2] // 2, :]
            rows.update(as_complex64(np.atleast_2d(row)).tobytes())
        digest = hashlib.sha256(header).hexdigest() if header else ""
        return {"header": digest, "kspace": rows.hexdigest()}

    def _hash_middle(self, file: h5py.File) -> str:
        """Hash the attributes and the middle slice."""
        # sorted: a copy of the file may hold its attributes in another order
        attributes = sorted((name, str(value)) for name, value in file.attrs.items())
        digest = hashlib.sha256(repr(attributes).encode())
        middle = kspace_dataset(file, self.path)[self.n_slices // 2]
        digest.update(np.ascontiguousarray(middle).tobytes())
        return digest.hexdigest()


def inspect_volume(
    path: Path,
    kspace_center: Center = "middle",
    index: FileIndex | None = None,
    stored: Path | None = None,
) -> VolumeInfo:
    """Read the facts about one file, or take them from an index.

    Args:
        path: file of the scan.
        kspace_center: position of the zero frequency in the file.
        index: facts that were read before.
        stored: file with the same scan in fastMRI's layout; None: the file has that layout.

    Raises:
        InputError: when it is no HDF5 file, is truncated, or holds no k-space in fastMRI's layout.
    """
    index = index or FileIndex()

    def read(file: h5py.File) -> dict[str, Any]:
        return _read_facts(file, path, kspace_center)

    file = stored or path
    try:
        facts = index.fact(file, f"volume, centre in the {kspace_center}", read)
    except InputError as error:
        # the user knows the scan, not its converted file in the cache
        raise InputError(str(error).replace(str(file), str(path))) from error
    # the index is JSON, which has lists instead of tuples
    facts = {name: tuple(v) if isinstance(v, list) else v for name, v in facts.items()}
    facts["affine"] = as_affine(facts["affine"])
    converted = None if file == path else file
    return VolumeInfo(
        path=path, kspace_center=kspace_center, index=index, converted=converted, **facts
    )


def _read_facts(file: h5py.File, path: Path, kspace_center: Center) -> dict[str, Any]:
    """Return the fields of `VolumeInfo` that follow from the file."""
    shape = kspace_shape(kspace_dataset(file, path), path)
    header = read_header(file)
    target = target_shape(file, shape, path)
    check_axes(shape, header, target, path)
    size = None if target is None else target[1:]
    padding, recon = complete_header(file, header, shape, size, kspace_center)
    acquisition = _text(file.attrs.get("acquisition", ""))
    affine = read_affine(file)
    return {
        "acquisition": acquisition or UNNAMED,
        "subject": patient_id(file) or path.stem,
        "has_patient_id": bool(patient_id(file)),
        "simulation": _text(file.attrs.get("simulation", "")),
        "shape": shape,
        "padding": padding,
        "crop": size or narrowed(recon, shape),
        "affine": affine or affine_of_voxels(header.voxel_mm),
        "placed": affine is not None,
    }


def patient_id(file: h5py.File) -> str:
    """Return the attribute ``patient_id`` as one line of text; empty without one."""
    return _text(file.attrs.get("patient_id", ""))


def _text(value: object) -> str:
    """Return an HDF5 attribute as one line of valid UTF-8 text."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return " ".join(text.encode("utf-8", "replace").decode().split())
