"""Single slices of fastMRI files: which are taken, and reading one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np
import torch
from torch import Tensor

from mrisem.data.contents import as_complex64, as_float32, dataset, open_scan
from mrisem.data.header import occupied_columns
from mrisem.data.image_volumes import ImageVolume, read_image_slice
from mrisem.data.volumes import VolumeInfo, kspace_dataset, target_name
from mrisem.errors import InputError
from mrisem.types import SliceInfo

# K-space is taken for uncentred where `corner_ratio` exceeds this: centred scans, with echoes off
# the middle by up to .3 of the matrix, have .6 at most, corner ones 6 at least (measured and
# simulated: tests/data/test_center.py).
_CORNER_RATIO = 3.0


class EmptySliceError(InputError):
    """A slice that holds only zeros: left out whatever ``on_error`` says."""


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
    """Read one slice.

    Returns:
        k-space ``(coil, y, x)`` complex64 with its centre in the middle, the file's mask ``(x,)``
        or ``(y, x)`` or None, the target ``(Y, X)`` float32 or None.

    Raises:
        EmptySliceError: when its k-space holds only zeros.
        InputError: when it cannot be read, holds NaN or infinity, or its centre lies elsewhere.
    """
    if isinstance(volume, ImageVolume):
        return read_image_slice(volume, index)
    where = f"{volume.path}, slice {index}"
    with open_scan(volume.stored) as file:
        kspace = as_complex64(kspace_dataset(file, volume.path)[index])
        mask = _stored_mask(file, volume)
        target = _read_target(file, volume, index)
    if kspace.ndim == 2:
        kspace = kspace[None]
    if kspace.shape != volume.shape[1:]:
        raise InputError(f"kspace must stay {volume.shape[1:]}, got {kspace.shape} in {where}")
    if not np.isfinite(kspace).all():
        raise InputError(
            f"kspace must be finite, got NaN or inf in {where}; leave it out with on_error=skip"
        )
    if not kspace.any():
        raise EmptySliceError(f"kspace must hold signal, got only zeros in {where}; it is left out")
    if volume.kspace_center == "corner":
        kspace = np.ascontiguousarray(np.fft.fftshift(kspace, axes=(-2, -1)))
    if corner_ratio(kspace) > _CORNER_RATIO:
        other = "corner" if volume.kspace_center == "middle" else "middle"
        raise InputError(
            f"the centre of k-space must lie in the {volume.kspace_center} of its axes, but most "
            f"energy lies elsewhere in {where}; set data.kspace_center={other}"
        )
    return torch.from_numpy(kspace), mask, target


def corner_ratio(kspace: np.ndarray) -> float:
    """How much stronger k-space is around index 0 of both axes than around the middle columns.

    Medians over small blocks of the samples that are not zero: neither single spikes, nor columns
    left out, nor an echo off the middle row change them much.

    Args:
        kspace: ``(coil, y, x)`` complex64, not all zero.
    """
    size = np.maximum(np.abs(kspace.real), np.abs(kspace.imag)).max(axis=0)
    height, width = size.shape
    rows, columns = (min(n, max(4, n // 16)) for n in (height, width))
    corner = np.roll(size, (rows // 2, columns // 2), axis=(0, 1))[:rows, :columns]
    left, quarter = (width - columns) // 2, height // 4
    middle = size[:, left : left + columns]
    blocks = [middle[top : top + rows] for top in range(quarter, height - quarter, rows)]
    if np.count_nonzero(corner) < corner.size / 8:  # a stray sample where nothing was acquired
        return 0.0
    return _median(corner) / max(_median(block) for block in (size, *blocks))


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
    if first >= after:
        first, after = int(occupied[0]), int(occupied[-1]) + 1
    if (first, after) != (left, right):
        warnings.warn(
            f"{volume.file}: the header says that columns {left} to {right} were acquired, but "
            f"only {first} to {after} hold data: the mask keeps to those",
            stacklevel=2,
        )
    return first, after


def _median(magnitude: np.ndarray) -> float:
    """Median of the samples that are not zero; 0 where all are."""
    samples = magnitude[magnitude > 0]
    return float(np.median(samples)) if samples.size else 0.0


def _stored_mask(file: h5py.File, volume: VolumeInfo) -> np.ndarray | None:
    """The file's mask: ``(x,)`` where it is the same in every row, else ``(y, x)``; or None."""
    item = dataset(file, "mask")
    if item is None:
        return None
    shape = item.shape
    while len(shape) > 1 and shape[-1] == 1:  # fastMRI's masks may end in axes of length 1
        shape = shape[:-1]
    if item.dtype.kind not in "biuf" or item.size == 0:
        raise InputError(
            f"mask must hold one number a phase-encode column, got {item.dtype} {item.shape} in "
            f"{volume.path}; rewrite it, or remove it"
        )
    values = item[()].reshape(shape) if shape else item[()].reshape(1)
    rows = values.reshape(-1, values.shape[-1])
    if (rows == rows[:1]).all():
        return rows[0]
    planes = values.reshape(-1, *values.shape[-2:])
    if not np.isfinite(planes).all() or not (planes == planes[:1]).all():
        raise InputError(
            f"mask must be (x,) or (y, x), the same in every slice, got {item.shape} that differs, "
            f"or NaN, in {volume.path}; give one mask for the file"
        )
    if planes.shape[1:] != volume.shape[2:]:
        raise InputError(
            f"mask must be (x,) or (y, x) = {volume.shape[2:]}, got {item.shape} in {volume.path}; "
            "rewrite it"
        )
    return planes[0]


def _read_target(file: h5py.File, volume: VolumeInfo, index: int) -> Tensor | None:
    name = target_name(file)
    target = None if name is None else dataset(file, name)
    if name is None or target is None:
        return None
    where = f"{volume.path}, slice {index}"
    values = as_float32(target[index], name, where)
    if values.shape != volume.crop:
        raise InputError(f"{name} must stay {volume.crop}, got {values.shape} in {where}")
    return torch.from_numpy(values)
