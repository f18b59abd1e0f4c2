"""Slices of fastMRI files as `mrisem.types.Batch`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from einops import repeat
from torch import Tensor
from torch.utils.data import Dataset

from mrisem.data.header import occupied_columns
from mrisem.data.slices import (
    EmptySliceError,
    SliceOf,
    acquired_columns,
    central_slices,
    read_slice,
)
from mrisem.data.volumes import VolumeInfo
from mrisem.errors import InputError
from mrisem.physics.coils import estimate_coarse_maps, interpolate_maps, root_sum_of_squares
from mrisem.physics.espirit import KERNEL_WIDTH
from mrisem.physics.fourier import center_crop, ifft2c
from mrisem.physics.masks import (
    ColumnMask,
    FileMask,
    calibration_lines,
    draw_columns,
    stable_seed,
)
from mrisem.physics.units import exponent_of, shift_exponent
from mrisem.types import Batch, FailedScan, SliceInfo

__all__ = ["Row", "SliceGroups", "as_batch", "central_slices", "read_slice", "undersample"]

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Row:
    """One slice of a batch.

    Args:
        masked_kspace: ``(coil, y, x)`` complex64, scaled as in `Batch`.
        scale: ``()`` float32.
        columns: ``(x,)`` bool, sampled ones.
        info: where the slice comes from.
        calibration: ``(coil, n, n)`` complex64, the centre of k-space for sensitivity maps, in any
            unit; None: what ``columns`` sample around the centre.
        target: ``(Y, X)`` float32, or None.
    """

    masked_kspace: Tensor
    scale: Tensor
    columns: Tensor
    info: SliceInfo
    calibration: Tensor | None = None
    target: Tensor | None = None


def volume_mask(
    volume: VolumeInfo, mask: ColumnMask, seed: int, kspace: Tensor, stored: np.ndarray | None
) -> tuple[Tensor, float]:
    """Sampled columns ``(x,)`` bool of a volume, and the acceleration they reach.

    The same for every slice: the file's name and ``seed`` seed the draw. ``kspace`` and ``stored``
    as for `acquired_columns`. Columns that a file's mask names but that hold nothing do not count.

    Raises:
        InputError: when columns would count as sampled that the file left out.
    """
    n_columns = volume.shape[3]
    padding = acquired_columns(volume, kspace, stored)
    occupied = torch.from_numpy(occupied_columns(kspace.numpy()))
    if isinstance(mask, FileMask):
        columns = mask.check(stored, n_columns, volume.file)
        columns[: padding[0]] = False
        columns[padding[1] :] = False
        empty = columns & ~occupied
        if empty.any():
            warnings.warn(
                f"{volume.file}: {int(empty.sum())} of the {int(columns.sum())} columns that its "
                "mask names hold only zeros: they do not count as sampled",
                stacklevel=2,
            )
        columns = columns & occupied
    else:
        columns = draw_columns(mask, n_columns, padding, stable_seed(volume.file, seed))
        empty = columns & ~occupied
        if empty.any():
            raise InputError(
                f"the mask may sample only columns that were acquired: {int(empty.sum())} of "
                f"{int(columns.sum())} are zero in {volume.path}, which is undersampled already; "
                "set mask=from_file (with a dataset 'mask' in the file)"
            )
    return columns, (padding[1] - padding[0]) / max(1, int(columns.sum()))


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
    groups: list[list[SliceOf]] = field(init=False)

    def __post_init__(self) -> None:
        n = self.slices_at_once
        if n < 1:
            raise InputError(f"data.slices_at_once must be at least 1, got {n}")
        volumes = [list(part) for _, part in groupby(self.slices, key=lambda s: s.volume.path)]
        self.groups = [part[i : i + n] for part in volumes for i in range(0, len(part), n)]

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
        calibration = None
        if self.calibration == "nominal":
            calibration = self._nominal_block(kspace, columns)
        return Row(masked, scale, columns, part.info(acceleration), calibration, target)

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
        return as_batch(rows, crop, self.cache_folder, self.sensitivity_maps)


def undersample(kspace: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Apply a mask and scale the zero-filled root-sum-of-squares image to a maximum of 1.

    Args:
        kspace: ``(coil, y, x)`` complex64, in units of the file.
        columns: ``(x,)`` bool.

    Returns:
        Masked k-space ``(coil, y, x)``, and the scale ``()``: an image times it is in units of the
        file.
    """
    exponent = exponent_of(kspace)
    masked = shift_exponent(kspace, -exponent) * columns
    scale = root_sum_of_squares(ifft2c(masked)).max()
    if not bool(scale > 0):
        raise InputError("the mask must sample some signal, every sampled column is zero")
    in_file = shift_exponent(scale, exponent)
    if not (bool(torch.isfinite(in_file)) and bool(in_file > 0)):
        raise InputError(
            f"images must lie within the range of float32, got a maximum of {float(scale):.3g} "
            f"times 2^{exponent}; write the k-space in another unit"
        )
    return masked / scale, in_file


def magnitude(kspace: Tensor) -> Tensor:
    """Root-sum-of-squares image of ``(coil, y, x)`` k-space: ``(y, x)``, in units of the file.

    Raises:
        InputError: when the image exceeds float32.
    """
    exponent = exponent_of(kspace)
    image = root_sum_of_squares(ifft2c(shift_exponent(kspace, -exponent)))
    image = shift_exponent(image, exponent)
    if not bool(torch.isfinite(image).all()):
        raise InputError("the image of k-space must be finite as float32; write another unit")
    return image


def as_batch(
    rows: Sequence[Row],
    crop: tuple[int, int],
    cache_folder: Path | None = None,
    estimator: str = "torch",
) -> Batch:
    """Put slices of one volume together and estimate their sensitivity maps.

    Args:
        rows: the slices; all have targets, or none.
        crop: ``(Y, X)`` of reconstructions.
        cache_folder: for sensitivity maps; None: not kept.
        estimator: of sensitivity maps.
    """
    masked, scale, columns = (
        torch.stack([getattr(row, name) for row in rows])
        for name in ("masked_kspace", "scale", "columns")
    )
    blocks = [_calibration(row) for row in rows]
    lines = torch.tensor([block.shape[-1] for block in blocks])
    n, _, height, width = masked.shape
    maps = torch.empty_like(masked)
    coarse: Tensor | None = None
    for size in lines.unique().tolist():  # slices with equally many in one go
        chosen = torch.stack([b for b in blocks if b.shape[-1] == size])
        part = estimate_coarse_maps(chosen, size, cache_folder, estimator=estimator)
        coarse = part.new_empty(n, *part.shape[1:]) if coarse is None else coarse
        coarse[lines == size] = part
        maps[lines == size] = interpolate_maps(part, (height, width))
    targets = [row.target for row in rows if row.target is not None]
    return Batch(
        masked_kspace=masked,
        mask=repeat(columns, "b x -> b y x", y=height).contiguous(),
        sensitivity_maps=maps,
        scale=scale,
        crop=crop,
        info=tuple(row.info for row in rows),
        target=torch.stack(targets) if targets else None,
        coarse_maps=coarse,
    )


def _calibration(row: Row) -> Tensor:
    """``(coil, n, n)``: the centre of k-space that maps are estimated from."""
    if row.calibration is not None:
        return row.calibration
    n = min(calibration_lines(row.columns), row.masked_kspace.shape[1])
    return center_crop(row.masked_kspace, (n, n))
