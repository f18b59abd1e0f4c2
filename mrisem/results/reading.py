"""Reading of reconstructions; such files may come from anywhere, and are checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import h5py
import numpy as np
from pydantic import BaseModel, NonNegativeInt, TypeAdapter

from mrisem.data.arrays import target_name
from mrisem.data.geometry import Affine, read_affine
from mrisem.errors import InputError
from mrisem.results.hdf5 import numbers_of, open_hdf5, text_of
from mrisem.results.inside import FileName, plain_name
from mrisem.results.record import Record, Scan

if TYPE_CHECKING:  # `mrisem report` reads single slices, and need not import torch
    from torch import Tensor

_FACTS = ("slices", "acceleration", "data_consistency", "seconds", "readout")
_TEXTS = ("acquisition", "record", "failed", "simulation")


class Failure(BaseModel):
    """Slices of a scan that were not reconstructed.

    Args:
        file: name of the input file; None in the reconstruction of that file.
        slices: indices of the slices; empty: the scan could not be read.
        message: the error.
    """

    file: FileName | None = None
    slices: tuple[NonNegativeInt, ...] = ()
    message: str = ""


FAILURES = TypeAdapter(tuple[Failure, ...])


@dataclass(frozen=True)
class Volume:
    """One reconstructed file.

    Args:
        path: path of the file.
        images: ``(slice, y, x)`` float32 magnitudes.
        facts: values for each slice: ``slices`` (index in the input), ``acceleration``,
            ``data_consistency``, ``seconds``; NaN: not recorded.
        acquisition: fastMRI's name of the sequence.
        record: record of the run; None: made by another program or an earlier version.
        scan: content of the input file; None: not recorded.
        failed: slices that could not be reconstructed.
        affine: matrix that maps (column, row, slice of the input) to mm (RAS+); None: not known.
        placed: whether the input states the position of its voxels, beside their size.
        simulation: text of the input on how it was simulated; empty: none.
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
        """Indices of the slices in the input."""
        numbers: list[int] = self.facts["slices"].tolist()
        return numbers

    @property
    def file(self) -> str:
        """Name of the input file."""
        return self.scan.file if self.scan else self.path.name

    @property
    def subject(self) -> str:
        """Subject of the input file, or without a record the stem of its name."""
        return self.scan.subject if self.scan else self.path.stem


@dataclass(frozen=True)
class Samples:
    """Reconstruction of one slice with its mask and sensitivity maps.

    Args:
        image: ``(y, x)`` complex64.
        mask: ``(y, x)`` bool.
        coarse_maps: ``(coil, g, g)`` complex64, sensitivity maps on a coarse grid.
        readout: number of rows of the field of view that the maps cover.
    """

    image: Tensor
    mask: Tensor
    coarse_maps: Tensor
    readout: int


def scan_of(content: h5py.File, path: Path) -> Scan | None:
    """Return the record of the input file; None: not recorded.

    Args:
        content: open reconstruction.
        path: its path.

    Raises:
        ValueError: when the file has not the name of its input file.
    """
    text = text_of(content, "scan")
    scan = Scan.model_validate_json(text) if text else None
    # targets are found by this name: a false one would compare with another scan
    if scan is not None and Path(plain_name(scan.file)).stem != path.stem:
        raise ValueError(f"it must have the name of its scan, got that of {scan.file!r:.80}")
    return scan


def read_volume(path: Path) -> Volume:
    """Read a reconstructed file.

    Raises:
        InputError: when the file is damaged, or holds no reconstruction.
    """
    import torch

    with open_hdf5(path, "reconstruct it again") as content:
        data = numbers_of(content, "reconstruction", 3)
        if data is None or data.dtype.kind not in "biuf":
            raise InputError(
                f"{path} must hold a dataset reconstruction (slice, y, x) of real numbers, got "
                f"{'none' if data is None else data.dtype}; reconstruct the file again"
            )
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
    """Read the values of each of ``n`` slices, see `Volume`."""
    # files of other programs hold images alone: their slices count from 0
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
    # slices are found by their index: repeated ones would be scored against one target
    slices = facts["slices"]
    if slices.dtype.kind not in "iu" or len({*slices.tolist()}) < n or (n and slices.min() < 0):
        raise ValueError(f"slices must be different indices, got {slices.tolist()!s:.80}")
    return facts


def read_samples(path: Path, position: int) -> Samples | None:
    """Read the samples of a slice for the audit; None: the file does not hold them.

    Args:
        path: the reconstructed file.
        position: position of the slice in that file.
    """
    import torch

    with open_hdf5(path, "reconstruct it again") as content:
        names = {"image": 3, "mask": 3, "coarse_maps": 4}
        data = [numbers_of(content, name, ndim) for name, ndim in names.items()]
        parts = [np.asarray(part[position]) for part in data if part is not None]
        if len(parts) < len(names):
            return None
        image, mask, maps = parts
        if image.shape != mask.shape or 0 in maps.shape:
            raise ValueError(f"image and mask must have one shape, got {image.shape}, {mask.shape}")
        rows = numbers_of(content, "readout", 1)
        # earlier versions reconstructed all rows, and did not write their number
        readout = len(mask) if rows is None else int(rows[position])
        if not len(mask) <= readout <= 2**16:
            raise ValueError(f"readout must be at least {len(mask)} rows, got {readout}")
        return Samples(
            torch.from_numpy(image.astype(np.complex64)),
            torch.from_numpy(mask.astype(bool)),
            torch.from_numpy(maps.astype(np.complex64)),
            readout,
        )


def read_slice(file: Path, number: int) -> np.ndarray | None:
    """Read one slice of a reconstruction or target.

    Args:
        file: the file.
        number: index of the slice in the input.

    Returns:
        ``(y, x)`` float32; None: file or slice is missing.
    """
    if not file.is_file():
        return None
    with open_hdf5(file) as content:
        name = "reconstruction" if "reconstruction" in content else target_name(content)
        data = None if name is None else _entry(content, name, number)
        image = None if data is None else data.astype(np.float32)
        if image is not None and not np.isfinite(image).all():
            raise ValueError(f"slice {number} must be finite, got NaN or infinity")
        return image


def read_marks(file: Path, name: Literal["lesions", "mask"], number: int) -> np.ndarray | None:
    """Read the lesion labels of a target, or the sampling mask of a reconstruction, of one slice.

    Args:
        file: the file.
        name: name of the dataset.
        number: index of the slice in the input.

    Returns:
        ``(y, x)``; None: file, dataset or slice is missing.
    """
    if not file.is_file():
        return None
    with open_hdf5(file) as content:
        return _entry(content, name, number)


def _entry(content: h5py.File, name: str, number: int) -> np.ndarray | None:
    """Return the entry of a slice in a dataset ``(slice, y, x)``; None: it is missing."""
    data, slices = numbers_of(content, name, 3), numbers_of(content, "slices", 1)
    if data is None:
        return None
    # targets hold all slices of the input, reconstructions name the ones that they hold
    indices = np.arange(len(data)) if slices is None else slices[()]
    positions = np.flatnonzero(indices == number)
    return np.asarray(data[positions[0]]) if positions.size else None
