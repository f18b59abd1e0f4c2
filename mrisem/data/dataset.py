"""Slices of fastMRI files as `mrisem.types.Batch`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mrisem.data.batches import Readout, Row, as_batch, undersample
from mrisem.data.header import occupied_columns
from mrisem.data.readers.companions import load_maps, load_mask
from mrisem.data.slices import (
    EmptySliceError,
    SliceOf,
    acquired_columns,
    central_slices,
    read_slice,
)
from mrisem.data.volumes import VolumeInfo
from mrisem.errors import InputError
from mrisem.physics.coils import virtual_coils
from mrisem.physics.espirit import KERNEL_WIDTH
from mrisem.physics.fourier import center_crop
from mrisem.physics.masks import (
    ColumnMask,
    FileMask,
    calibration_lines,
    calibration_square,
    draw_columns,
    stable_seed,
)
from mrisem.physics.units import exponent_of, shift_exponent
from mrisem.types import Batch, FailedScan

__all__ = ["SliceGroups", "central_slices", "read_slice", "undersample", "volume_mask"]

T = TypeVar("T")
S = TypeVar("S")


def volume_mask(
    volume: VolumeInfo, mask: ColumnMask, seed: int, kspace: Tensor, stored: np.ndarray | None
) -> tuple[Tensor, float]:
    """Sampled columns ``(x,)`` bool of a volume, or points ``(y, x)``, and their acceleration.

    The same for every slice: the file's name and ``seed`` seed the draw. ``kspace`` and ``stored``
    as for `acquired_columns`. Columns that a file's mask names but that hold nothing do not count.

    Raises:
        InputError: when columns would count as sampled that the file left out.
    """
    n_columns = volume.shape[3]
    padding = acquired_columns(volume, kspace, stored)
    occupied = torch.from_numpy(occupied_columns(kspace.numpy()))
    if isinstance(mask, FileMask):
        given = stored if mask.path is None else load_mask(Path(mask.path))
        columns = mask.check(given, n_columns, volume.file if mask.path is None else mask.path)
        columns[..., : padding[0]] = False
        columns[..., padding[1] :] = False
        if columns.ndim == 2:
            return _points(volume, columns, kspace, padding)
        empty = columns & ~occupied
        if empty.any():
            warnings.warn(
                f"{volume.file}: {int(empty.sum())} of the {int(columns.sum())} columns that its "
                "mask names hold only zeros: they do not count as sampled",
                stacklevel=2,
            )
        columns = columns & occupied
    else:
        columns = draw_columns(mask, n_columns, padding, stable_seed(volume.seed_name, seed))
        empty = columns & ~occupied
        if empty.any():
            raise InputError(
                f"the mask may sample only columns that were acquired: {int(empty.sum())} of "
                f"{int(columns.sum())} are zero in {volume.path}, which is undersampled already; "
                "set mask=from_file (with a dataset 'mask' in the file)"
            )
    return columns, (padding[1] - padding[0]) / max(1, int(columns.sum()))


def _points(
    volume: VolumeInfo, points: Tensor, kspace: Tensor, padding: tuple[int, int]
) -> tuple[Tensor, float]:
    """Points ``(y, x)`` of a mask that hold data, and acquired over sampled points."""
    height = volume.shape[2]
    if len(points) != height:
        raise InputError(
            f"mask must be (y, x) = {volume.shape[2:]}, got {tuple(points.shape)} for "
            f"{volume.path}; give one entry a sample"
        )
    sampled = points & (kspace != 0).any(0)
    if empty := int(points.sum() - sampled.sum()):
        warnings.warn(
            f"{volume.file}: {empty} of the {int(points.sum())} points that its mask names hold "
            "only zeros: they do not count as sampled",
            stacklevel=3,
        )
    return sampled, height * (padding[1] - padding[0]) / max(1, int(sampled.sum()))


@dataclass
class SliceGroups(Dataset):
    """One item is a `Batch` of up to ``slices_at_once`` slices of one volume.

    For use in a ``DataLoader(batch_size=None)``. Files that could not be inspected follow the
    groups, as `FailedScan`. Other options as for `mrisem.data.datamodules.FastMRI`.

    A slice that holds only zeros, and with ``on_error=skip`` one that is bad in another way, is
    named in the batch's ``failed``; a group of which nothing is left comes as `FailedScan`.

    Args:
        slices: what to read; slices of a volume stand together.
        failed: files already found to be bad.
        calibration: lines that sensitivity maps are estimated from: all that the ``drawn`` mask
            samples around the centre, or only its ``nominal`` centre lines, which are the same
            whatever is drawn, so that a cached result serves every epoch.
    """

    slices: Sequence[SliceOf]
    mask: ColumnMask
    slices_at_once: int = 4
    seed: int = 0
    cache_folder: Path | None = None
    on_error: str = "raise"
    failed: Sequence[FailedScan] = ()
    sensitivity_maps: str = "torch"
    calibration: Literal["drawn", "nominal"] = "drawn"
    readout: Readout = "all"
    virtual_coils: int | None = None
    groups: list[list[SliceOf]] = field(init=False)

    def __post_init__(self) -> None:
        n = self.slices_at_once
        if n < 1:
            raise InputError(f"data.slices_at_once must be at least 1, got {n}")
        volumes = [list(part) for _, part in groupby(self.slices, key=lambda s: s.volume.path)]
        self.groups = [part[i : i + n] for part in volumes for i in range(0, len(part), n)]

    @property
    def batch_bytes(self) -> int:
        """Size of the largest batch: k-space and sensitivity maps, complex64, and a tenth more."""
        sizes = (len(g) * math.prod(g[0].volume.shape[1:]) for g in self.groups)
        return int(2 * 8 * 1.1 * max(sizes, default=0))

    def __len__(self) -> int:
        return len(self.groups) + len(self.failed)

    def __getitem__(self, index: int) -> Batch | FailedScan:
        if index >= len(self.groups):
            return self.failed[index - len(self.groups)]
        group = self.groups[index]
        crop = group[0].volume.crop
        failed: list[FailedScan] = []
        parts = [(part, part) for part in group]
        rows = self._attempt(self._row, parts, failed)
        try:
            batch = self._batch([row for _, row in rows], crop) if rows else None
        except InputError:  # one slice's sensitivity maps must not cost the others
            rows = self._attempt(partial(self._alone, crop=crop), rows, failed)
            batch = self._batch([row for _, row in rows], crop) if rows else None
        failed.sort(key=lambda scan: scan.slices)
        if batch is not None:
            return replace(batch, failed=tuple(failed))
        more = f" (and {len(failed) - 1} more slices)" if len(failed) > 1 else ""
        slices = tuple(number for scan in failed for number in scan.slices)
        return FailedScan(failed[0].file, failed[0].message + more, slices)

    def _attempt(
        self,
        function: Callable[[S], T],
        parts: Sequence[tuple[SliceOf, S]],
        failed: list[FailedScan],
    ) -> list[tuple[SliceOf, T]]:
        """Call a function for each slice; add those for which it fails to ``failed``, or raise."""
        results = []
        for part, argument in parts:
            file = part.volume.file
            try:
                results.append((part, function(argument)))
            except InputError as error:
                message = str(error) if file in str(error) else f"{file}: {error}"
                if self.on_error == "raise" and not isinstance(error, EmptySliceError):
                    raise InputError(message) from error
                failed.append(FailedScan(file, message, (part.slice,)))
        return results

    def _row(self, part: SliceOf) -> Row:
        """Read and undersample one slice."""
        volume = part.volume
        kspace, stored, target = read_slice(volume, part.slice)
        columns, acceleration = volume_mask(volume, self.mask, self.seed, kspace, stored)
        masked, scale = undersample(kspace, columns)
        calibration, maps = None, load_maps(part, self.sensitivity_maps)
        if self.calibration == "nominal" and maps is None:
            calibration = self._nominal_block(kspace, columns)
        if self.virtual_coils is not None and self.virtual_coils < len(masked):
            lines = calibration_square(columns)
            block = center_crop(masked, (min(lines, masked.shape[1]), lines))
            mix = virtual_coils(block, self.virtual_coils)
            masked = torch.einsum("vc,cyx->vyx", mix, masked)
            if calibration is not None:
                calibration = torch.einsum("vc,cyx->vyx", mix, calibration)
            maps = None if maps is None else torch.einsum("vc,cyx->vyx", mix, maps)
        return Row(masked, scale, columns, part.info(acceleration), calibration, target, maps)

    def _nominal_block(self, kspace: Tensor, columns: Tensor) -> Tensor | None:
        """The mask's centre lines ``(coil, n, n)``; None where it names too few to calibrate."""
        center = getattr(self.mask, "center", None)
        if center is None:
            return None
        n = min(calibration_lines(center(len(columns)) & columns), kspace.shape[1])
        if n <= KERNEL_WIDTH:
            return None
        block = center_crop(kspace, (n, n))
        return shift_exponent(block, -exponent_of(block))

    def _alone(self, row: Row, crop: tuple[int, int]) -> Row:
        """Return a row that makes a batch on its own; else raise what is wrong with it."""
        self._batch([row], crop)
        return row

    def _batch(self, rows: Sequence[Row], crop: tuple[int, int]) -> Batch:
        return as_batch(rows, crop, self.cache_folder, self.sensitivity_maps, self.readout)
