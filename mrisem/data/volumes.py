"""What is in a fastMRI file, without reading its k-space."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from mrisem.data.contents import as_complex64, complex_type, dataset
from mrisem.data.geometry import Affine, affine_of_voxels, as_affine, read_affine
from mrisem.data.header import Header, complete_header, header_bytes, read_header
from mrisem.data.index import FileIndex
from mrisem.errors import InputError

UNNAMED = "unnamed"
"""Acquisition of a file that does not name one."""

FROM_IMAGES = "simulated from images"
"""Beginning of the attribute ``simulation`` of scans that `mrisem simulate source=...` made."""

Center = Literal["middle", "corner"]
"""Where the zero frequency lies: at index ``n // 2`` of both axes, as fastMRI has it, or at 0."""


@dataclass(frozen=True)
class ScanContent:
    """What tells two scans apart, cheaply: neither names nor times of files count.

    Args:
        subject: the subject.
        shape: ``(slice, coil, y, x)`` of the k-space.
        header: SHA-256 of the ISMRMRD header's bytes; empty without a header.
        kspace: SHA-256 of the central readout line of every slice, as complex64.
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
        subject: the ``patient_id`` attribute, the file's stem where there is none.
        shape: ``(slice, coil, y, x)`` of its k-space; a single-coil file counts as one coil.
        padding: first acquired phase-encode column and the one after the last.
        crop: ``(Y, X)`` of targets and reconstructions: the target's size, else the header's
            reconSpace.
        kspace_center: where the zero frequency lies in the file.
        has_patient_id: whether the file names its subject.
        simulation: how the file says that it was simulated; empty where it says nothing.
        affine: maps (column, row, slice) of the images to mm to the right, front and head (RAS+):
            the attribute ``affine``, else the header's sizes (see ``placed``); None: neither.
        placed: whether the file says where its voxels lie. A header says how large they are alone.
        index: knows what was read of the file before.
        converted: the same scan in fastMRI's layout; None: the file itself has it.
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
        """The file's name."""
        return self.path.name

    @property
    def seed_name(self) -> str:
        """Name that seeds the draw of a mask: a scan has one mask in whatever format it is."""
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
        """What tells the scan from others; reads one line of each slice.

        Raises:
            InputError: when the file cannot be read.
        """
        digests = self.index.fact(self.stored, "content", self._hash_lines)
        return ScanContent(self.subject, self.shape, **digests)

    @property
    def middle(self) -> str:
        """SHA-256 of the file's attributes and the k-space of its middle slice.

        Raises:
            InputError: when the file cannot be read.
        """
        digest: str = self.index.fact(self.stored, "middle", self._hash_middle)
        return digest

    def _hash_lines(self, file: h5py.File) -> dict[str, str]:
        header = header_bytes(file)
        lines = hashlib.sha256()
        kspace = kspace_dataset(file, self.path)
        for index in range(self.n_slices):
            line = kspace[index, ..., self.shape[2] // 2, :]
            lines.update(as_complex64(np.atleast_2d(line)).tobytes())
        digest = hashlib.sha256(header).hexdigest() if header else ""
        return {"header": digest, "kspace": lines.hexdigest()}

    def _hash_middle(self, file: h5py.File) -> str:
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
        path: the scan.
        kspace_center: where the zero frequency lies in it.
        index: facts that are known.
        stored: the same scan in fastMRI's layout; None: the file itself has it.

    Raises:
        InputError: when it is no HDF5 file, is cut short, or does not hold k-space as fastMRI does.
    """
    index = index or FileIndex()

    def read(file: h5py.File) -> dict[str, Any]:
        return _read_facts(file, path, kspace_center)

    file = stored or path
    try:
        facts = index.fact(file, f"volume, centre in the {kspace_center}", read)
    except InputError as error:
        raise InputError(str(error).replace(str(file), str(path))) from error
    facts = {name: tuple(v) if isinstance(v, list) else v for name, v in facts.items()}
    facts["affine"] = as_affine(facts["affine"])  # JSON knows no tuples
    converted = None if file == path else file
    return VolumeInfo(
        path=path, kspace_center=kspace_center, index=index, converted=converted, **facts
    )


def _read_facts(file: h5py.File, path: Path, kspace_center: Center) -> dict[str, Any]:
    """Fields of `VolumeInfo` that the file decides."""
    shape = _kspace_shape(kspace_dataset(file, path), path)
    header = read_header(file)
    target = _target_shape(file, shape, path)
    _check_axes(shape, header, target, path)
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
        "crop": size or _narrowed(recon, shape),
        "affine": affine or affine_of_voxels(header.voxel_mm),
        "placed": affine is not None,
    }


def patient_id(file: h5py.File) -> str:
    """The file's ``patient_id`` as one line of text; empty where there is none."""
    return _text(file.attrs.get("patient_id", ""))


def target_name(file: h5py.File) -> str | None:
    """Name of the dataset with the target images; None where there are none.

    Single-coil files hold the image of the emulated single coil (``reconstruction_esc``) beside the
    multi-coil root-sum-of-squares; theirs is the first. A file of targets alone may be either.
    """
    kspace = dataset(file, "kspace")
    multi = kspace is not None and kspace.ndim == 4
    names = ("reconstruction_rss",) if multi else ("reconstruction_esc", "reconstruction_rss")
    return next((name for name in names if dataset(file, name) is not None), None)


def kspace_dataset(file: h5py.File, path: Path) -> h5py.Dataset:
    """Return the file's k-space.

    Raises:
        InputError: when there is none, or its values are no complex numbers.
    """
    kspace = dataset(file, "kspace")
    if kspace is None:
        raise InputError(f"{path} must hold a dataset 'kspace', got {sorted(file.keys())[:20]}")
    if not complex_type(kspace.dtype):
        fix = "write it as complex64"
        if kspace.dtype.kind in "iuf" and kspace.shape[-1:] == (2,):
            fix = "join real and imaginary parts: kspace[..., 0] + 1j * kspace[..., 1]"
        raise InputError(f"kspace must be complex64, got {kspace.dtype} in {path}; {fix}")
    return kspace


def _kspace_shape(kspace: h5py.Dataset, path: Path) -> tuple[int, int, int, int]:
    """``(slice, coil, y, x)``; single-coil k-space in a folder of such files counts as one coil."""
    shape = kspace.shape
    if len(shape) == 3 and path.parent.name.startswith("singlecoil_") and 0 not in shape:
        return shape[0], 1, shape[1], shape[2]
    if len(shape) != 4 or 0 in shape:
        raise InputError(
            f"kspace must be (slice, coil, y, x), got {shape} in {path}; single-coil files "
            "(slice, y, x) belong in a folder singlecoil_<split>, or need a coil axis of length 1"
        )
    return shape[0], shape[1], shape[2], shape[3]


def _target_shape(
    file: h5py.File, shape: tuple[int, int, int, int], path: Path
) -> tuple[int, int, int] | None:
    """``(slice, Y, X)`` of the targets, which are checked; None where there are none."""
    name = target_name(file)
    target = None if name is None else dataset(file, name)
    if target is None:
        return None
    size = target.shape
    fits = len(size) == 3 and 0 < size[1] <= shape[2] and 0 < size[2] <= shape[3]
    if not fits or size[0] != shape[0]:
        raise InputError(
            f"{name} must be (slice, Y, X) within kspace {shape}, got {size} in {path}; rewrite or "
            "remove it"
        )
    if target.dtype.kind not in "iuf":
        raise InputError(
            f"{name} must hold real numbers, got {target.dtype} in {path}; rewrite or remove it"
        )
    return size


def _check_axes(
    shape: tuple[int, int, int, int],
    header: Header,
    target: tuple[int, int, int] | None,
    path: Path,
) -> None:
    """Refuse axes in another order, where the header's sizes show it."""
    if header.encoded is None:
        return
    readout, width = header.encoded
    order = ""
    if shape[2] != readout and shape[1:3] == (readout, width):
        order = "(slice, y, x, coil): the coils are last"
    elif (
        target is None  # which says how many slices there are
        and header.channels == shape[0] != shape[1]
        and shape[2:] == (readout, width)
    ):
        order = "(coil, slice, y, x): the coils are first"
    elif readout != width and shape[3] == readout and shape[2] != readout:
        order = "(slice, coil, x, y): phase encodes and readout are swapped"
    if order:
        raise InputError(
            f"kspace must be (slice, coil, y, x) with y = {readout} and x = {width}, as the header "
            f"says, got {shape} in {path}, which looks like {order}; move the axes"
        )


def _narrowed(recon: tuple[int, int], shape: tuple[int, int, int, int]) -> tuple[int, int]:
    """A reconSpace wider than k-space is cut to a square, as fastMRI does."""
    height, width = recon
    if width > shape[3]:
        height = width = shape[3]
    return min(height, shape[2]), width


def _text(value: object) -> str:
    """An HDF5 attribute as one line of text, which UTF-8 can hold."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return " ".join(text.encode("utf-8", "replace").decode().split())
