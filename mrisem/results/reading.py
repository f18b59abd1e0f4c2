"""Files of reconstructions and their targets, read as data from a stranger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import h5py
import numpy as np
from pydantic import BaseModel, NonNegativeInt, TypeAdapter

from mrisem.data.contents import dataset
from mrisem.data.geometry import Affine, read_affine
from mrisem.data.volumes import patient_id, target_name
from mrisem.errors import InputError
from mrisem.files import reading
from mrisem.results.inside import FileName, plain_name
from mrisem.results.record import Record, Scan

if TYPE_CHECKING:  # torch is imported where a volume is read: `mrisem report` reads slices alone
    from torch import Tensor

_FACTS = ("slices", "acceleration", "data_consistency", "seconds", "readout")
_TEXTS = ("acquisition", "record", "failed", "simulation")
_MAX_BYTES = 2**31  # of a dataset: a few megabytes of a file can claim any shape


class Failure(BaseModel):
    """Slices of a scan that were not reconstructed.

    Args:
        file: name of the input file; None inside that file's own reconstruction.
        slices: their indices; none: the scan could not be read.
        message: what went wrong.
    """

    file: FileName | None = None
    slices: tuple[NonNegativeInt, ...] = ()
    message: str = ""


FAILURES = TypeAdapter(tuple[Failure, ...])


@dataclass(frozen=True)
class Volume:
    """One reconstructed file.

    Args:
        path: the file.
        images: ``(slice, y, x)`` float32 magnitudes.
        facts: per slice ``slices`` (index in the input), ``acceleration``, ``data_consistency``,
            ``seconds``; NaN where not recorded.
        acquisition: fastMRI's name of the sequence.
        record: what made it; None: another program or an earlier version.
        scan: what it was made from; None: not recorded.
        failed: slices that could not be reconstructed.
        affine: maps (column, row, slice of the input) to mm (RAS+); None: not known.
        placed: whether the input says where its voxels lie, beside their size.
        simulation: how the input says that it was simulated; empty where it says nothing.
    """

    path: Path
    images: Tensor
    facts: dict[str, np.ndarray]
    acquisition: str
    record: Record | None = None
    scan: Scan | None = None
    failed: tuple[Failure, ...] = ()
    affine: Affine | None = None
    placed: bool = False
    simulation: str = ""

    @property
    def slices(self) -> list[int]:
        """Index of each slice in the input."""
        numbers: list[int] = self.facts["slices"].tolist()
        return numbers

    @property
    def file(self) -> str:
        """Name of the input file."""
        return self.scan.file if self.scan else self.path.name

    @property
    def subject(self) -> str:
        """Subject of the input file; that file's stem where not recorded."""
        return self.scan.subject if self.scan else self.path.stem


@dataclass(frozen=True)
class Samples:
    """What a slice was reconstructed to and from.

    Args:
        image: ``(y, x)`` complex64.
        mask: ``(y, x)`` bool.
        coarse_maps: ``(coil, g, g)`` complex64, sensitivities on a coarse grid.
        readout: rows of the field of view that they cover.
    """

    image: Tensor
    mask: Tensor
    coarse_maps: Tensor
    readout: int


@dataclass(frozen=True)
class Target:
    """The targets of one input file."""

    images: Tensor  # (slice, y, x) float32
    lesions: Tensor | None  # (slice, y, x) uint8: a lesion's number, or 0; None: not marked
    subject: str  # patient_id; empty where there is none


@contextmanager
def open_hdf5(path: Path, fix: str = "make it again") -> Iterator[h5py.File]:
    """Open an HDF5 file to read; whatever fails inside is an InputError of one line."""
    with reading(path, "a whole HDF5 file", fix):
        if not path.is_file():
            raise ValueError("there is no such file")
        with h5py.File(path, "r") as content:
            yield content


def numbers_of(content: h5py.File, name: str, ndim: int) -> h5py.Dataset | None:
    """Return a dataset of numbers that lies in the file itself; None where there is none.

    Raises:
        ValueError: it lies in other files, or is no array of numbers of that rank.
    """
    data = dataset(content, name)
    if data is None:
        return None
    if data.is_virtual:
        raise ValueError(f"{name} must lie in the file, got parts of other files")
    if data.dtype.kind not in "biufc" or data.ndim != ndim:
        raise ValueError(f"{name} must hold numbers of rank {ndim}, got {data.dtype} {data.shape}")
    if data.size * data.dtype.itemsize > _MAX_BYTES:
        raise ValueError(f"{name} must have at most {_MAX_BYTES} bytes, got shape {data.shape}")
    return data


def text_of(content: h5py.File, name: str) -> str:
    """Return an attribute as text; empty where there is none."""
    found = content.attrs.get(name, "")
    return found.decode() if isinstance(found, bytes) else str(found)


def scan_of(content: h5py.File, path: Path) -> Scan | None:
    """Return what the file at the path was made from; None where not recorded."""
    text = text_of(content, "scan")
    scan = Scan.model_validate_json(text) if text else None
    if scan is not None and Path(plain_name(scan.file)).stem != path.stem:
        raise ValueError(f"it must be named as its scan, got that of {scan.file!r:.80}")
    return scan


def read_volume(path: Path) -> Volume:
    """Read a reconstructed file.

    Raises:
        InputError: the file is damaged, or no such file.
    """
    import torch

    with open_hdf5(path, "reconstruct it again") as content:
        data = numbers_of(content, "reconstruction", 3)
        if data is None or data.dtype.kind not in "biuf":
            raise InputError(f"{path} must hold a dataset reconstruction (slice, y, x); remake it")
        images = torch.from_numpy(data[()].astype(np.float32))
        text = {name: text_of(content, name) for name in _TEXTS}
        return Volume(
            path,
            images,
            _read_facts(content, path, len(images)),
            text["acquisition"],
            Record.parse(text["record"]) if text["record"] else None,
            scan_of(content, path),
            FAILURES.validate_json(text["failed"]) if text["failed"] else (),
            read_affine(content),
            bool(content.attrs.get("placed", False)),
            text["simulation"],
        )


def _read_facts(content: h5py.File, path: Path, n: int) -> dict[str, np.ndarray]:
    facts = {name: np.full(n, np.nan) for name in _FACTS} | {"slices": np.arange(n)}
    for name in _FACTS:
        data = numbers_of(content, name, 1)
        if data is None:
            continue
        if data.shape != (n,):
            raise InputError(
                f"{path}: dataset {name} must have one value for each of the {n} "
                f"slices, got shape {data.shape}; reconstruct the file again"
            )
        facts[name] = data[()]
    slices = facts["slices"]
    if slices.dtype.kind not in "iu" or len({*slices.tolist()}) < n or (n and slices.min() < 0):
        raise ValueError(f"slices must be different indices, got {slices.tolist()!s:.80}")
    return facts


def read_samples(path: Path, place: int) -> Samples | None:
    """Read what the audit of a slice needs, by its place in the file; None where not kept."""
    import torch

    with open_hdf5(path, "reconstruct it again") as content:
        names = {"image": 3, "mask": 3, "coarse_maps": 4}
        data = [numbers_of(content, name, ndim) for name, ndim in names.items()]
        parts = [np.asarray(part[place]) for part in data if part is not None]
        if len(parts) < len(names):
            return None
        image, mask, maps = parts
        if image.shape != mask.shape or 0 in maps.shape:
            raise ValueError(f"image and mask must have one shape, got {image.shape}, {mask.shape}")
        rows = numbers_of(content, "readout", 1)
        readout = len(mask) if rows is None else int(rows[place])  # earlier versions kept all rows
        if not len(mask) <= readout <= 2**16:
            raise ValueError(f"readout must be at least {len(mask)} rows, got {readout}")
        return Samples(
            torch.from_numpy(image.astype(np.complex64)),
            torch.from_numpy(mask.astype(bool)),
            torch.from_numpy(maps.astype(np.complex64)),
            readout,
        )


def read_slice(file: Path, number: int) -> np.ndarray | None:
    """Return a slice ``(y, x)`` of a reconstruction or target by its index in the input.

    None where the file or the slice is not there.
    """
    if not file.is_file():
        return None
    with open_hdf5(file) as content:
        name = "reconstruction" if "reconstruction" in content else target_name(content)
        data = None if name is None else _entry(content, name, number)
        image = None if data is None else data.astype(np.float32)
        if image is not None and not np.isfinite(image).all():
            raise ValueError(f"slice {number} must be finite")
        return image


def read_marks(file: Path, name: Literal["lesions", "mask"], number: int) -> np.ndarray | None:
    """Return lesion labels of a target, or samples of a reconstruction: ``(y, x)`` of a slice.

    None where the file, the dataset or the slice is not there.
    """
    if not file.is_file():
        return None
    with open_hdf5(file) as content:
        return _entry(content, name, number)


def _entry(content: h5py.File, name: str, number: int) -> np.ndarray | None:
    """Return a slice's entry of a dataset by the slice's index in the input."""
    data, slices = numbers_of(content, name, 3), numbers_of(content, "slices", 1)
    if data is None:
        return None
    indices = np.arange(len(data)) if slices is None else slices[()]
    places = np.flatnonzero(indices == number)
    return np.asarray(data[places[0]]) if places.size else None


def has_patient_id(file: Path) -> bool:
    """Whether an input file, or that of its targets, names its subject."""
    with open_hdf5(file, "copy it again") as content:
        return bool(patient_id(content))


def read_target(file: Path, slices: Sequence[int]) -> Target:
    """Read the targets of an input file that must have these slices.

    Raises:
        InputError: file, targets or slices are missing, or lesions are not the target's pixels.
    """
    import torch

    if not file.is_file():
        raise InputError(
            f"each reconstruction needs a target file, got no {file}; "
            "give the data.root and data.split that were reconstructed"
        )
    with open_hdf5(file, "copy it again") as content:
        name = target_name(content)
        data = None if name is None else numbers_of(content, name, 3)
        if data is None:
            raise InputError(
                f"a target file must hold reconstruction_rss or reconstruction_esc, got none in "
                f"{file} (test files have none); evaluate files of a split that has targets"
            )
        images = data[()].astype(np.float32)
        marked = numbers_of(content, "lesions", 3)
        labels = None if marked is None else marked[()]
        subject = patient_id(content)
    if max(slices, default=0) >= len(images):
        raise InputError(
            f"slices must lie in the target's 0..{len(images) - 1}, got {max(slices)} "
            f"for {file.name}; was it reconstructed from this file?"
        )
    if labels is not None and (labels.shape != images.shape or labels.dtype != np.uint8):
        raise InputError(
            f"{file}: dataset lesions must be uint8 of the target's shape {images.shape}, got "
            f"{labels.dtype} {labels.shape}; simulate the file again"
        )
    lesions = None if labels is None else torch.from_numpy(labels)
    return Target(torch.from_numpy(images), lesions, subject)
