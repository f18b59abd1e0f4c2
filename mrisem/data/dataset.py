"""Dataset of slices, undersampled and grouped into batches (`mrisem.types.Batch`)."""

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
    VolumeSlice,
    acquired_columns,
    central_slices,
    read_slice,
)
from mrisem.data.volumes import VolumeInfo
from mrisem.errors import InputError
from mrisem.physics.coils import virtual_coils
from mrisem.physics.draws import draw_columns
from mrisem.physics.espirit import KERNEL_WIDTH
from mrisem.physics.fourier import center_crop
from mrisem.physics.masks import (
    ColumnMask,
    FileMask,
    calibration_lines,
    calibration_square,
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
    """Return the samples that a volume's mask takes, and the acceleration.

    They are the same for every slice: the file's name and ``seed`` seed the draw.

    Args:
        volume: the volume.
        mask: undersampling mask.
        seed: seed of the run.
        kspace: ``(coil, y, x)`` complex64 of any slice.
        stored: mask in the file of the scan, see `acquired_columns`; None: the file has none.

    Returns:
        sampled columns ``(x,)`` bool, or points ``(y, x)`` bool, and acquired over sampled samples.

    Raises:
        InputError: when a drawn mask would sample columns that hold no data.
    """
    padding = acquired_columns(volume, kspace, stored)
    if isinstance(mask, FileMask):
        return _stored_samples(volume, mask, kspace, stored, padding)
    draw_seed = stable_seed(volume.seed_name, seed)
    columns = draw_columns(mask, volume.shape[3], padding, draw_seed)
    empty = columns & ~torch.from_numpy(occupied_columns(kspace.numpy()))
    # A second undersampling of such a file would take its zeros for measured data.
    if empty.any():
        raise InputError(
            f"the mask may sample only columns that were acquired, got {int(empty.sum())} of "
            f"{int(columns.sum())} that are zero in {volume.path}, which is undersampled already; "
            "set mask=from_file (with a dataset 'mask' in the file)"
        )
    return columns, _acceleration(columns, padding)


def _stored_samples(
    volume: VolumeInfo,
    mask: FileMask,
    kspace: Tensor,
    stored: np.ndarray | None,
    padding: tuple[int, int],
) -> tuple[Tensor, float]:
    """Return the columns or points of a mask from a file that hold data, see `volume_mask`."""
    values = stored if mask.path is None else load_mask(Path(mask.path))
    source = volume.file if mask.path is None else mask.path
    named = mask.check(values, volume.shape[3], source)
    named[..., : padding[0]] = False
    named[..., padding[1] :] = False
    is_points = named.ndim == 2
    if is_points and len(named) != volume.shape[2]:
        raise InputError(
            f"mask must be (y, x) = {volume.shape[2:]}, got {tuple(named.shape)} for "
            f"{volume.path}; give one entry for each sample"
        )
    has_data = (kspace != 0).any(0)
    sampled = named & (has_data if is_points else has_data.any(0))
    # Zeros would pull the reconstruction towards zero there: they count as not sampled.
    if n_empty := int(named.sum() - sampled.sum()):
        warnings.warn(
            f"{volume.file}: {n_empty} of the {int(named.sum())} "
            f"{'points' if is_points else 'columns'} of its mask hold only zeros: they do not "
            "count as sampled",
            stacklevel=3,
        )
    return sampled, _acceleration(sampled, padding)


def _acceleration(sampled: Tensor, padding: tuple[int, int]) -> float:
    """Return acquired over sampled columns ``(x,)``, or points ``(y, x)``."""
    n_acquired = (padding[1] - padding[0]) * (len(sampled) if sampled.ndim == 2 else 1)
    return n_acquired / max(1, int(sampled.sum()))


@dataclass
class SliceGroups(Dataset):
    """Dataset whose items are batches: up to ``slices_at_once`` slices of one volume.

    For use in a ``DataLoader(batch_size=None)``. Files that could not be inspected follow the
    groups, as `FailedScan`. Other options as for `mrisem.data.datamodules.FastMRI`.

    A slice that holds only zeros is left out and named in the batch's ``failed``. So is a slice
    that is bad in another way, with ``on_error=skip``. A group without a good slice is a
    `FailedScan`.

    Args:
        slices: slices to read; those of a volume stand together.
        failed: files already found to be bad.
        calibration: lines from which sensitivity maps are estimated: all lines around the centre
            that the ``drawn`` mask samples, or only its ``nominal`` centre lines. The latter do not
            depend on the draw, so that cached maps serve every epoch.
    """

    slices: Sequence[VolumeSlice]
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
    groups: list[list[VolumeSlice]] = field(init=False)

    def __post_init__(self) -> None:
        n = self.slices_at_once
        if n < 1:
            raise InputError(f"data.slices_at_once must be at least 1, got {n}; set 1 or more")
        volumes = [list(part) for _, part in groupby(self.slices, key=lambda s: s.volume.path)]
        self.groups = [part[i : i + n] for part in volumes for i in range(0, len(part), n)]

    @property
    def batch_bytes(self) -> int:
        """Size of the largest batch in bytes: k-space and sensitivity maps, and a tenth more."""
        sizes = (len(g) * math.prod(g[0].volume.shape[1:]) for g in self.groups)
        # two arrays, 8 bytes for each complex64 value; the tenth covers mask, target and scale
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
        except InputError:
            # The maps of all slices are estimated together: try each slice alone, so that only the
            # bad ones are lost.
            rows = self._attempt(partial(self._check_row, crop=crop), rows, failed)
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
        parts: Sequence[tuple[VolumeSlice, S]],
        failed: list[FailedScan],
    ) -> list[tuple[VolumeSlice, T]]:
        """Call a function for each slice; add the slices for which it fails to ``failed``.

        Raises:
            InputError: with ``on_error=raise``, unless the slice holds only zeros.
        """
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

    def _row(self, part: VolumeSlice) -> Row:
        """Read and undersample one slice."""
        volume = part.volume
        kspace, stored, target = read_slice(volume, part.slice)
        columns, acceleration = volume_mask(volume, self.mask, self.seed, kspace, stored)
        masked, scale = undersample(kspace, columns)
        calibration, maps = None, load_maps(part, self.sensitivity_maps)
        if self.calibration == "nominal" and maps is None:
            calibration = self._nominal_block(kspace, columns)
        if self.virtual_coils is not None and self.virtual_coils < len(masked):
            # The mixing is found in the fully sampled centre, and applied to all that has coils.
            lines = calibration_square(columns)
            block = center_crop(masked, (min(lines, masked.shape[1]), lines))
            mix = virtual_coils(block, self.virtual_coils)
            masked = torch.einsum("vc,cyx->vyx", mix, masked)
            if calibration is not None:
                calibration = torch.einsum("vc,cyx->vyx", mix, calibration)
            maps = None if maps is None else torch.einsum("vc,cyx->vyx", mix, maps)
        return Row(masked, scale, columns, part.info(acceleration), calibration, target, maps)

    def _nominal_block(self, kspace: Tensor, columns: Tensor) -> Tensor | None:
        """Return the mask's centre ``(coil, n, n)``; None: it has too few centre lines."""
        center = getattr(self.mask, "center", None)
        if center is None:  # masks from files have no nominal lines
            return None
        n = min(calibration_lines(center(len(columns)) & columns), kspace.shape[1])
        if n <= KERNEL_WIDTH:
            return None
        block = center_crop(kspace, (n, n))
        return shift_exponent(block, -exponent_of(block))

    def _check_row(self, row: Row, crop: tuple[int, int]) -> Row:
        """Return a row that makes a batch on its own; raise InputError if it does not."""
        self._batch([row], crop)
        return row

    def _batch(self, rows: Sequence[Row], crop: tuple[int, int]) -> Batch:
        """See `as_batch`."""
        return as_batch(rows, crop, self.cache_folder, self.sensitivity_maps, self.readout)
