"""Slices of an image in anatomical axes: their choice, orientation and resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from mrisem.data.images import Voxels
from mrisem.errors import InputError

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}  # axis across the plane
SLICE_STEP = 5.0  # mm; fastMRI's brain slices are 5 mm thick
# A slice shows the object where its mean is above this share of the largest mean of a slice.
_OCCUPIED = 0.2
# Voxels whose edges differ by less than this ratio count as cubes, since headers round.
_CUBE = 1.05
# Share of the band, at its upper end, over which frequencies fade out where pixels become larger.
_FADING = 0.2


@dataclass(frozen=True)
class Cut:
    """Choice of slices from an image.

    Args:
        size: pixels along the edge of a slice; its field of view is the image's, made square.
        plane: orientation of the slices; None: across the longest edge of the voxels, or axial for
            cubic voxels.
        step: distance of slices, mm; at least that of the image's own slices.
        center: position of the middle slice, from 0 (foot, back, left) to 1 of the object's extent.
        n_slices: number of slices; None: as many as the object has.
    """

    size: int
    plane: Plane | None = None
    step: float = SLICE_STEP
    center: float = 0.5
    n_slices: int | None = None


def choose_plane(voxels: Voxels, cut: Cut) -> Plane:
    """Return the cut's plane, or the one that suits the voxels.

    >>> thick_x = Voxels(np.ones((4, 8, 8)), (4.0, 0.6, 0.6))
    >>> choose_plane(thick_x, Cut(64)), choose_plane(thick_x, Cut(64, "coronal"))
    ('sagittal', 'coronal')
    """
    if cut.plane is not None:
        return cut.plane
    if 1 in voxels.values.shape:  # a single slice defines the plane, even if it is thin
        edges = tuple(float(n == 1) for n in voxels.values.shape)
    elif max(voxels.spacing) < _CUBE * min(voxels.spacing):
        return "axial"
    else:
        edges = voxels.spacing
    return next(plane for plane, axis in PLANES.items() if edges[axis] == max(edges))


def choose_slices(voxels: Voxels, cut: Cut, where: str) -> list[int]:
    """Return the indices of a cut's slices in the image, beginning at the foot, back or left.

    Args:
        voxels: the image.
        cut: choice of the slices.
        where: file of the image, for messages.

    Raises:
        InputError: when the object has too few slices.
    """
    plane = choose_plane(voxels, cut)
    axis = PLANES[plane]
    means = voxels.values.mean(tuple({0, 1, 2} - {axis}), dtype=np.float64)
    # background slices hold noise, and are left out
    occupied = np.flatnonzero(means > _OCCUPIED * means.max())
    first, last = int(occupied[0]), int(occupied[-1])
    stride = max(1.0, cut.step / voxels.spacing[axis])
    middle = first + cut.center * (last - first)
    if cut.n_slices is None:
        below, above = math.floor((middle - first) / stride), math.floor((last - middle) / stride)
        offsets = [float(k) for k in range(-below, above + 1)]
    else:
        offsets = [k - (cut.n_slices - 1) / 2 for k in range(cut.n_slices)]
    indices = [math.floor(middle + stride * offset + 0.5) for offset in offsets]
    if indices[0] < first or indices[-1] > last:
        raise InputError(
            f"{cut.n_slices} {plane} slices {stride * voxels.spacing[axis]:.1f} mm apart, the "
            f"middle one at {cut.center:g}, must lie in the object, which has {last - first + 1} "
            f"slices of {voxels.spacing[axis]:.1f} mm in {where}; set fewer n_slices, a smaller "
            "source_slice_step or another source_plane"
        )
    return indices


def cut_slice(voxels: Voxels, plane: Plane, index: int, size: int) -> tuple[np.ndarray, float]:
    """Cut one slice in radiological orientation, on a square grid.

    The patient's head is up, in an axial slice the front. The patient's right side is at the left,
    in a sagittal slice the front.

    Args:
        voxels: the image.
        plane: orientation of the slice.
        index: index of the slice in the image.
        size: pixels along the edge of the result.

    Returns:
        ``(size, size)`` float32 magnitudes, and the edge length of a pixel in mm.
    """
    axis = PLANES[plane]
    across, up = sorted({0, 1, 2} - {axis})
    # axes run to the right, front and head: both are flipped, and the second becomes the rows
    pixels = voxels.values.take(index, axis=axis)[::-1, ::-1].T
    spacing = voxels.spacing[up], voxels.spacing[across]
    edge = max(n * mm for n, mm in zip(pixels.shape, spacing, strict=True)) / size
    rows, columns = (
        resampling(n, mm / edge, size) for n, mm in zip(pixels.shape, spacing, strict=True)
    )
    square = rows @ pixels.astype(np.float64) @ columns.T
    return np.abs(square).astype(np.float32), edge  # interpolation may undershoot zero


def affine_of_slices(voxels: Voxels, plane: Plane, indices: Sequence[int], size: int) -> np.ndarray:
    """Return the affine ``(4, 4)`` float64 of slices from `cut_slice`, to mm (RAS+).

    Slices count as evenly spaced; rounding of their indices moves them by at most half a voxel.

    Args:
        voxels: the image.
        plane: orientation of the slices.
        indices: indices of the slices in the image.
        size: pixels along the edge of a slice.
    """
    axis, n = PLANES[plane], voxels.values.shape
    across, up = sorted({0, 1, 2} - {axis})
    edge = max(n[k] * voxels.spacing[k] for k in (across, up)) / size
    to_voxel = np.zeros((4, 4))  # (column, row, slice) to indices of the image
    to_voxel[3, 3] = 1
    for column, k in enumerate((across, up)):
        step = edge / voxels.spacing[k]
        to_voxel[k, column] = -step  # both axes are flipped, and the centre stays
        to_voxel[k, 3] = (n[k] - 1) / 2 + step * (size - 1) / 2
    last = max(1, len(indices) - 1)
    single = SLICE_STEP / voxels.spacing[axis]
    to_voxel[axis, 2] = (indices[-1] - indices[0]) / last if len(indices) > 1 else single
    to_voxel[axis, 3] = np.mean(indices) - to_voxel[axis, 2] * (len(indices) - 1) / 2
    return voxels.affine @ to_voxel


@lru_cache(maxsize=4)  # two axes for each of the two latest images
def resampling(n: int, ratio: float, size: int) -> np.ndarray:
    """Return the matrix that resamples ``n`` pixels to ``size`` by their Fourier series.

    ``W[i, j] = (1 / N) sum_k h(k / N) exp(2 pi i k (p_i - j) / N)``, with ``p_i`` the position of
    new pixel i in old pixels, and a period of ``N`` old pixels. The centre stays. ``h`` passes the
    frequencies that both grids hold. For larger new pixels it falls to zero with a raised cosine
    over the last fifth of the band, as scanners' filters do against ringing.

    Args:
        n: number of old pixels.
        ratio: edge length of an old pixel over that of a new one.
        size: number of new pixels.

    Returns:
        ``(size, n)`` float64; rows sum to 1, except near the edges of the old pixels.

    >>> np.allclose(resampling(6, 1.0, 6), np.eye(6))
    True
    """
    positions = (np.arange(size) - (size - 1) / 2) / ratio + (n - 1) / 2
    # The series is periodic: zeros around the old pixels keep the far side out of the new ones.
    overhang = max(-positions[0], positions[-1] - (n - 1), 0.0)
    period = n + 2 * math.ceil(overhang) + (0 if overhang == 0 and ratio == 1 else 16)
    frequencies = np.fft.fftfreq(period)  # cycles per old pixel
    band = min(0.5, 0.5 * ratio)  # Nyquist frequency of the coarser grid
    share = (np.abs(frequencies) / band - (1 - _FADING)) / _FADING
    passed = np.where(share > 1, 0.0, 0.5 + 0.5 * np.cos(np.pi * share.clip(0, 1)))
    if ratio >= 1:  # the new grid holds all frequencies of the old one
        passed = np.ones_like(frequencies)
    synthesis = np.exp(2j * np.pi * np.outer(positions, frequencies))
    analysis = np.exp(-2j * np.pi * np.outer(frequencies, np.arange(n)))
    matrix = np.real(synthesis * passed @ analysis) / period
    matrix.flags.writeable = False  # the cache hands the same array to every caller
    return matrix
