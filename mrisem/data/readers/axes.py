"""Reordering of arrays with named axes to ``(slice, coil, y, x)``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mrisem.errors import InputError

NAMES = ("slice", "coil", "y", "x")
PARTITION = "partition"
"""Axis of a second phase encoding: its inverse Fourier transform gives the slices."""
# axes of an array without names, by its number of axes
BY_RANK = {2: ("y", "x"), 3: ("coil", "y", "x"), 4: NAMES}


def parse_axes(text: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names in ``data.axes``; None stays None.

    >>> parse_axes("coil, y,x"), parse_axes(None)
    (('coil', 'y', 'x'), None)

    Raises:
        InputError: when a name is unknown or repeated, or y or x is missing.
    """
    if text is None:
        return None
    words = text.split(",") if isinstance(text, str) else list(text)
    names = tuple(str(word).strip() for word in words)
    is_complete = {"y", "x"} <= {*names} <= {*NAMES, PARTITION}
    # partitions are transformed to slices, so an array has one of the two
    has_both = {"slice", PARTITION} <= {*names}
    if not is_complete or len({*names}) < len(names) or has_both:
        raise InputError(
            f"data.axes must name y and x and may name coil, and slice or {PARTITION}, each once, "
            f"got {','.join(names)}; set y for the readout and x for the phase-encode axis"
        )
    return names


def in_order(array: np.ndarray, axes: Sequence[str] | None, path: Path) -> np.ndarray:
    """Move named axes to ``(slice, coil, y, x)``; a missing slice or coil axis has length 1.

    Args:
        array: array with any number of axes.
        axes: names of its axes; None: fastMRI's order, see `BY_RANK`.
        path: file of the array, for messages.

    Raises:
        InputError: when the numbers of axes and names differ.
    """
    axes = BY_RANK.get(array.ndim, ()) if axes is None else axes
    if len(axes) != array.ndim:
        raise InputError(
            f"data.axes must name each axis of the array, got {','.join(axes) or 'no names'} for "
            f"shape {array.shape} in {path}; set data.axes, such as data.axes=slice,coil,y,x"
        )
    # partitions take the place of slices until they are transformed to slices
    names = ["slice" if name == PARTITION else name for name in axes]
    present = [name for name in NAMES if name in names]
    moved = array.transpose([names.index(name) for name in present])
    lengths = [moved.shape[present.index(name)] if name in present else 1 for name in NAMES]
    ordered = moved.reshape(lengths)
    return partitions_to_slices(ordered) if PARTITION in axes else ordered


def without_coils(axes: Sequence[str] | None, rank: int) -> tuple[str, ...] | None:
    """Return the axes of images whose k-space has these axes.

    Args:
        axes: axes of the k-space; None: fastMRI's order.
        rank: number of axes of the images.

    >>> without_coils(("y", "x", "coil"), 2), without_coils(None, 3)
    (('y', 'x'), ('slice', 'y', 'x'))
    """
    if axes is None:
        return ("slice", "y", "x")[-rank:]
    return tuple("slice" if name == PARTITION else name for name in axes if name != "coil")


def partitions_to_slices(kspace: np.ndarray) -> np.ndarray:
    """Transform partitions, a second phase encoding, to slices.

    Args:
        kspace: ``(partition, ...)`` complex, with the zero frequency at ``n // 2``.

    Returns:
        ``(slice, ...)`` complex64.
    """
    slices = np.fft.ifft(np.fft.ifftshift(kspace, axes=0), axis=0, norm="ortho")
    return np.fft.fftshift(slices, axes=0).astype(np.complex64)
