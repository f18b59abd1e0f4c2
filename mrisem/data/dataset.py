"""Slices of fastMRI files as `mrisem.types.Batch`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from einops import repeat
from torch import Tensor
from torch.utils.data import Dataset

from mrisem.data.volumes import FailedScan, VolumeInfo, occupied_columns, one_line
from mrisem.errors import InputError
from mrisem.physics.coils import estimate_sensitivity_maps, root_sum_of_squares
from mrisem.physics.fourier import ifft2c
from mrisem.physics.masks import (
    ColumnMask,
    FileMask,
    calibration_lines,
    draw_columns,
    stable_seed,
)
from mrisem.types import Batch, SliceInfo


@dataclass(frozen=True)
class SliceOf:
    """One slice that is to be processed.

    Args:
        volume: where it is.
        slice: its index in the file.
        n_slices: number of slices of that file in this run.
    """

    volume: VolumeInfo
    slice: int
    n_slices: int

    def info(self, acceleration: float) -> SliceInfo:
        """Describe the slice for a batch."""
        file = self.volume
        facts = (file.file, self.slice, self.n_slices, file.acquisition, file.subject)
        return SliceInfo(*facts, acceleration)


def central_slices(volumes: Sequence[VolumeInfo], max_slices: int | None) -> list[SliceOf]:
    """List the ``max_slices`` central slices of each volume (None: all)."""
    if max_slices is not None and max_slices < 1:
        raise InputError(f"data.max_slices must be at least 1, got {max_slices}")
    slices = []
    for volume in volumes:
        n = volume.n_slices if max_slices is None else min(max_slices, volume.n_slices)
        start = (volume.n_slices - n) // 2
        slices += [SliceOf(volume, index, n) for index in range(start, start + n)]
    return slices


def read_slice(volume: VolumeInfo, index: int) -> tuple[Tensor, np.ndarray | None, Tensor | None]:
    """Read one slice through fastMRI's reader.

    Returns:
        k-space ``(coil, y, x)`` complex64, the file's mask ``(x,)`` or None, the target ``(Y, X)``
        float32 or None.

    Raises:
        InputError: when it cannot be read or holds NaN, infinity or nothing.
    """
    from mrisem.data.reader import VolumeReader

    try:
        kspace, mask, target, *_ = VolumeReader(volume.path, volume.n_slices)[index]
    except OSError as error:
        raise InputError(
            f"{volume.path} must be a complete HDF5 file, slice {index} cannot be read "
            f"({one_line(error)}); copy it again"
        ) from error
    kspace = np.asarray(kspace, dtype=np.complex64)
    if not np.isfinite(kspace).all():
        raise InputError(f"kspace must be finite, got NaN or inf in {volume.path}, slice {index}")
    if not kspace.any():
        raise InputError(f"kspace must hold signal, got only zeros in {volume.path}, slice {index}")
    tensor = None if target is None else torch.from_numpy(np.asarray(target, dtype=np.float32))
    return torch.from_numpy(kspace), mask, tensor


def acquired_columns(
    volume: VolumeInfo, kspace: Tensor, stored: np.ndarray | None
) -> tuple[int, int]:
    """First acquired column and the one after the last: header's padding, or less where data end.

    Args:
        volume: the file.
        kspace: ``(coil, y, x)`` of any slice.
        stored: the file's own mask; with one, zeros may be lines left out and say nothing.
    """
    left, right = volume.padding
    if stored is not None:
        return left, right
    occupied = np.flatnonzero(occupied_columns(kspace.numpy()))
    first, after = max(left, int(occupied[0])), min(right, int(occupied[-1]) + 1)
    if (first, after) != (left, right):
        warnings.warn(
            f"{volume.file}: the header says that columns {left} to {right} were acquired, but "
            f"only {first} to {after} hold data: the mask keeps to those",
            stacklevel=2,
        )
    return first, after


def volume_mask(
    volume: VolumeInfo, mask: ColumnMask, seed: int, kspace: Tensor, stored: np.ndarray | None
) -> tuple[Tensor, float]:
    """Sampled columns ``(x,)`` bool of a volume, and the acceleration they reach.

    The same for every slice: the file's name and ``seed`` seed the draw. ``kspace`` and ``stored``
    as for `acquired_columns`.

    Raises:
        InputError: when columns would count as sampled that the file left out.
    """
    n_columns = volume.shape[3]
    padding = acquired_columns(volume, kspace, stored)
    if isinstance(mask, FileMask):
        columns = mask.check(stored, n_columns, volume.file)
        columns[: padding[0]] = False
        columns[padding[1] :] = False
    else:
        columns = draw_columns(mask, n_columns, padding, stable_seed(volume.file, seed))
        empty = columns.numpy() & ~occupied_columns(kspace.numpy())
        if empty.any():
            raise InputError(
                f"the mask may sample only columns that were acquired: {empty.sum()} of "
                f"{int(columns.sum())} are zero in {volume.path}, which is undersampled already; "
                "set mask=from_file (with a dataset 'mask' in the file)"
            )
    return columns, (padding[1] - padding[0]) / max(1, int(columns.sum()))


@dataclass
class SliceGroups(Dataset):
    """One item is a `Batch` of up to ``slices_at_once`` slices of one volume.

    For use in a ``DataLoader(batch_size=None)``. Files that could not be inspected follow the
    groups, as `FailedScan`. Other options as for `mrisem.data.datamodules.FastMRI`.

    Args:
        slices: what to read; slices of a volume stand together.
        failed: files already found to be bad.
    """

    slices: Sequence[SliceOf]
    mask: ColumnMask
    slices_at_once: int = 4
    seed: int = 0
    cache_folder: Path | None = None
    on_error: str = "raise"
    failed: Sequence[FailedScan] = ()
    sensitivity_maps: str = "torch"
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
        file = group[0].volume.file
        try:
            return self._load(group)
        except InputError as error:
            message = str(error) if file in str(error) else f"{file}: {error}"
            if self.on_error == "raise":
                raise InputError(message) from error
            return FailedScan(file, message)

    def _load(self, group: list[SliceOf]) -> Batch:
        """Read and undersample the slices of one group."""
        volume = group[0].volume
        rows, targets = [], []
        for part in group:
            kspace, stored, target = read_slice(volume, part.slice)
            columns, acceleration = volume_mask(volume, self.mask, self.seed, kspace, stored)
            rows.append((*undersample(kspace, columns), columns, part.info(acceleration)))
            targets += [] if target is None else [target]
        return as_batch(rows, volume.crop, targets, self.cache_folder, self.sensitivity_maps)


def undersample(kspace: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Apply a mask and scale the zero-filled root-sum-of-squares image to a maximum of 1.

    Args:
        kspace: ``(coil, y, x)`` complex64, in units of the file.
        columns: ``(x,)`` bool.

    Returns:
        Masked k-space ``(coil, y, x)``, and the scale ``()``: an image times it is in units of the
        file.
    """
    masked = kspace * columns
    scale = root_sum_of_squares(ifft2c(masked)).max()
    if not bool(scale > 0):
        raise InputError("the mask must sample some signal, every sampled column is zero")
    return masked / scale, scale


def as_batch(
    rows: Sequence[tuple[Tensor, Tensor, Tensor, SliceInfo]],
    crop: tuple[int, int],
    targets: list[Tensor] | None = None,
    cache_folder: Path | None = None,
    estimator: str = "torch",
) -> Batch:
    """Put slices of one volume together and estimate their sensitivity maps.

    Args:
        rows: for each slice what `undersample` gives, its sampled columns ``(x,)``, and what it is.
        crop: ``(Y, X)`` of reconstructions.
        targets: ``(Y, X)`` float32 of each slice; None or empty: there are none.
        cache_folder: for sensitivity maps; None: not kept.
        estimator: of sensitivity maps.
    """
    *tensors, info = zip(*rows, strict=True)
    masked, scale, columns = map(torch.stack, tensors)
    lines = torch.tensor([calibration_lines(row) for row in columns])
    maps = torch.empty_like(masked)
    for n in lines.unique().tolist():  # slices with equally many in one go
        maps[lines == n] = estimate_sensitivity_maps(
            masked[lines == n], n, cache_folder, estimator=estimator
        )
    return Batch(
        masked_kspace=masked,
        mask=repeat(columns, "b x -> b y x", y=masked.shape[2]).contiguous(),
        sensitivity_maps=maps,
        scale=scale,
        crop=crop,
        info=info,
        target=torch.stack(targets) if targets else None,
    )
