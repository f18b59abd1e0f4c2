"""Single slices of files in fastMRI's layout: their choice, and reading of one slice."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np
import torch
from torch import Tensor

from mrisem.data.arrays import kspace_dataset, target_name
from mrisem.data.contents import as_complex64, as_float32, dataset, open_scan
from mrisem.data.header import occupied_columns
from mrisem.data.image_volumes import ImageVolume, read_image_slice
from mrisem.data.volumes import VolumeInfo
from mrisem.errors import InputError
from mrisem.types import SliceInfo

# K-space counts as uncentred if `corner_ratio` exceeds this. Centred scans, with echoes up to 0.3
# of the matrix off the middle, have at most 0.6; scans with the zero frequency in the corner have
# at least 6 (measured and simulated scans, tests/data/test_center.py).
_CORNER_RATIO = 3.0


class EmptySliceError(InputError):
    """A slice holds only zeros; it is left out for each value of ``on_error``."""


@dataclass(frozen=True)
class VolumeSlice:
    """One slice that is to be processed.

    Args:
        volume: volume of the slice.
        slice: index in the file.
        n_slices: number of slices of that file in this run.
    """

    volume: VolumeInfo
    slice: int
    n_slices: int

    def info(self, acceleration: float) -> SliceInfo:
        """Return the description of the slice in a batch."""
        file = self.volume
        facts = (file.file, self.slice, self.n_slices, file.acquisition, file.subject)
        return SliceInfo(*facts, acceleration)


def central_slices(volumes: Sequence[VolumeInfo], max_slices: int | None) -> list[VolumeSlice]:
    """List the ``max_slices`` central slices of each volume (None: all)."""
    if max_slices is not None and max_slices < 1:
        raise InputError(f"data.max_slices must be at least 1, got {max_slices}; set 1 or more")
    slices = []
    for volume in volumes:
        n = volume.n_slices if max_slices is None else min(max_slices, volume.n_slices)
        start = (volume.n_slices - n) // 2
        slices += [VolumeSlice(volume, index, n) for index in range(start, start + n)]
    return slices


def read_slice(volume: VolumeInfo, index: int) -> tuple[Tensor, np.ndarray | None, Tensor | None]:
    """Read one slice.

    Args:
        volume: volume of the slice.
        index: index of the slice in the file.

    Returns:
        k-space ``(coil, y, x)`` complex64 with its centre in the middle; mask ``(x,)`` or
        ``(y, x)`` of the file, or None; target ``(Y, X)`` float32, or None.

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
    _check_kspace(kspace, volume, where)
    if volume.kspace_center == "corner":
        kspace = np.ascontiguousarray(np.fft.fftshift(kspace, axes=(-2, -1)))
    if corner_ratio(kspace) > _CORNER_RATIO:
        other = "corner" if volume.kspace_center == "middle" else "middle"
        raise InputError(
            f"the centre of k-space must lie in the {volume.kspace_center} of its axes, got most "
            f"energy elsewhere in {where}; set data.kspace_center={other}"
        )
    return torch.from_numpy(kspace), mask, target


def _check_kspace(kspace: np.ndarray, volume: VolumeInfo, where: str) -> None:
    """Raise InputError unless k-space has the volume's shape, is finite and holds signal."""
    if kspace.shape != volume.shape[1:]:
        raise InputError(
            f"kspace must keep its shape {volume.shape[1:]} during a run, got {kspace.shape} in "
            f"{where}; start again"
        )
    if not np.isfinite(kspace).all():
        raise InputError(
            f"kspace must be finite, got NaN or inf in {where}; leave it out with on_error=skip"
        )
    if not kspace.any():
        raise EmptySliceError(f"kspace must hold signal, got only zeros in {where}; it is left out")


def corner_ratio(kspace: np.ndarray) -> float:
    """Return how much stronger k-space is around index 0 of both axes than around the middle.

    Args:
        kspace: ``(coil, y, x)`` complex64, not all zero.
    """
    size = np.maximum(np.abs(kspace.real), np.abs(kspace.imag)).max(axis=0)
    height, width = size.shape
    rows, columns = (min(n, max(4, n // 16)) for n in (height, width))
    corner = np.roll(size, (rows // 2, columns // 2), axis=(0, 1))[:rows, :columns]
    # blocks of the middle columns, since an echo may lie off the middle row
    left, quarter = (width - columns) // 2, height // 4
    middle = size[:, left : left + columns]
    blocks = [middle[top : top + rows] for top in range(quarter, height - quarter, rows)]
    if np.count_nonzero(corner) < corner.size / 8:  # single samples where nothing was acquired
        return 0.0
    # medians of the samples that are not zero: spikes and omitted columns do not change them
    return _median(corner) / max(_median(block) for block in (size, *blocks))


def acquired_columns(
    volume: VolumeInfo, kspace: Tensor, stored: np.ndarray | None
) -> tuple[int, int]:
    """Return the first acquired column and the column after the last.

    These are the header's padding, or less where the data end before it.

    Args:
        volume: the volume.
        kspace: ``(coil, y, x)`` complex64 of any slice.
        stored: mask in the file. With a mask, zeros may be omitted lines, and the padding counts.
    """
    left, right = volume.padding
    if stored is not None:
        return left, right
    occupied = np.flatnonzero(occupied_columns(kspace.numpy()))
    first, after = max(left, int(occupied[0])), min(right, int(occupied[-1]) + 1)
    if first >= after:  # a padding that excludes all data is wrong: the data count
        first, after = int(occupied[0]), int(occupied[-1]) + 1
    if (first, after) != (left, right):
        warnings.warn(
            f"{volume.file}: the header says that columns {left} to {right} were acquired, but "
            f"only {first} to {after} hold data: the mask samples only those",
            stacklevel=2,
        )
    return first, after


def _median(magnitude: np.ndarray) -> float:
    """Return the median of the samples that are not zero; 0 without such samples."""
    samples = magnitude[magnitude > 0]
    return float(np.median(samples)) if samples.size else 0.0


def _stored_mask(file: h5py.File, volume: VolumeInfo) -> np.ndarray | None:
    """Return the mask of a file: ``(x,)`` if all rows are equal, else ``(y, x)``; None: no mask."""
    item = dataset(file, "mask")
    if item is None:
        return None
    shape = item.shape
    while len(shape) > 1 and shape[-1] == 1:  # fastMRI's masks may end in axes of length 1
        shape = shape[:-1]
    if item.dtype.kind not in "biuf" or item.size == 0:
        raise InputError(
            f"mask must hold one number for each phase-encode column, got {item.dtype} "
            f"{item.shape} in {volume.path}; rewrite or remove it"
        )
    values = item[()].reshape(shape) if shape else item[()].reshape(1)
    rows = values.reshape(-1, values.shape[-1])
    if (rows == rows[:1]).all():  # whole columns
        return rows[0]
    planes = values.reshape(-1, *values.shape[-2:])
    if not np.isfinite(planes).all() or not (planes == planes[:1]).all():
        raise InputError(
            f"mask must be (x,) or (y, x), the same in every slice and without NaN, got "
            f"{item.shape} that is not in {volume.path}; write one mask for the file"
        )
    if planes.shape[1:] != volume.shape[2:]:
        raise InputError(
            f"mask must be (x,) or (y, x) = {volume.shape[2:]}, got {item.shape} in {volume.path}; "
            "rewrite it"
        )
    return planes[0]


def _read_target(file: h5py.File, volume: VolumeInfo, index: int) -> Tensor | None:
    """Read the target ``(Y, X)`` float32 of a slice; None: the file has no targets."""
    name = target_name(file)
    target = None if name is None else dataset(file, name)
    if name is None or target is None:
        return None
    where = f"{volume.path}, slice {index}"
    values = as_float32(target[index], name, where)
    if values.shape != volume.crop:
        raise InputError(
            f"{name} must keep its size {volume.crop} during a run, got {values.shape} in {where}; "
            "start again"
        )
    return torch.from_numpy(values)
