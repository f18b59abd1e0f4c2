"""Arrays with named axes in the order ``(slice, coil, y, x)``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mrisem.errors import InputError

NAMES = ("slice", "coil", "y", "x")
PARTITION = "partition"
"""Axis of a second phase encoding: its inverse Fourier transform gives the slices."""
BY_RANK = {2: ("y", "x"), 3: ("coil", "y", "x"), 4: NAMES}


def parse_axes(text: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names in ``data.axes``.

    >>> parse_axes("coil, y,x"), parse_axes(None)
    (('coil', 'y', 'x'), None)

    Raises:
        InputError: when a name is unknown or comes twice, or y or x is missing.
    """
    if text is None:
        return None
    words = text.split(",") if isinstance(text, str) else list(text)
    names = tuple(str(word).strip() for word in words)
    known = {*NAMES, PARTITION}
    both = {"slice", PARTITION} <= {*names}
    if not {"y", "x"} <= {*names} <= known or len({*names}) < len(names) or both:
        raise InputError(
            f"data.axes must name y and x and may name coil, and slice or {PARTITION}, each once, "
            f"got {','.join(names)}; y is the readout and x the phase-encode axis"
        )
    return names


def in_order(array: np.ndarray, axes: Sequence[str] | None, path: Path) -> np.ndarray:
    """Move named axes to ``(slice, coil, y, x)``; a missing slice or coil axis has length 1.

    Args:
        array: any rank.
        axes: names of its axes; None: fastMRI's order, by rank.
        path: its file, for messages.

    Raises:
        InputError: when the array has another rank than there are names.
    """
    axes = BY_RANK.get(array.ndim, ()) if axes is None else axes
    if len(axes) != array.ndim:
        raise InputError(
            f"data.axes must name each axis of the array, got {','.join(axes) or 'no names'} for "
            f"shape {array.shape} in {path}; set data.axes, such as data.axes=slice,coil,y,x"
        )
    names = ["slice" if name == PARTITION else name for name in axes]
    present = [name for name in NAMES if name in names]
    moved = array.transpose([names.index(name) for name in present])
    whole = moved.reshape([moved.shape[present.index(n)] if n in present else 1 for n in NAMES])
    return partitions_to_slices(whole) if PARTITION in axes else whole


def without_coils(axes: Sequence[str] | None, rank: int) -> tuple[str, ...] | None:
    """Axes of images whose k-space has these axes; None where the rank alone says it.

    >>> without_coils(("y", "x", "coil"), 2), without_coils(None, 3)
    (('y', 'x'), ('slice', 'y', 'x'))
    """
    if axes is None:
        return ("slice", "y", "x")[-rank:]
    return tuple("slice" if name == PARTITION else name for name in axes if name != "coil")


def partitions_to_slices(kspace: np.ndarray) -> np.ndarray:
    """Transform the first axis, a second phase encoding with its centre at ``n // 2``, to slices.

    Args:
        kspace: ``(partition, ...)`` complex.

    Returns:
        ``(slice, ...)`` complex64.
    """
    moved = np.fft.ifft(np.fft.ifftshift(kspace, axes=0), axis=0, norm="ortho")
    return np.fft.fftshift(moved, axes=0).astype(np.complex64)
