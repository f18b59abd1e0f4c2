"""Interface of the readers: the scan that they return, and their options."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from mrisem.data.contents import MAX_ENTRIES, MAX_SLICE_ENTRIES, MAX_SLICES
from mrisem.errors import InputError

_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # the machine's memory, bytes


@dataclass(frozen=True)
class Scan:
    """One scan, read from any format.

    Args:
        kspace: ``(slice, coil, y, x)`` complex64, zero where nothing was acquired.
        mask: ``(x,)`` or ``(y, x)``, not zero where sampled; None: the zeros of k-space show it.
        target: ``(slice, Y, X)`` float32 magnitudes; None: a fully sampled scan gets targets made
            from its k-space.
        sensitivity_maps: ``(slice, coil, y, x)`` complex64, or None.
        noise: ``(coil, n)`` complex64 samples of a noise scan, or None.
        header: bytes of the ISMRMRD header; empty: none.
        acquisition: name of the sequence; empty: the file names none.
        patient_id: name of the subject; empty: the file names none.
        affine: ``(4, 4)`` float64 that maps (column, row, slice) of the target to RAS+ mm, or None.
        matrix_affine: the same for an image of the whole k-space matrix, or None.
        simulation: text of the file on how it was simulated; empty: none.
    """

    kspace: np.ndarray
    mask: np.ndarray | None = None
    target: np.ndarray | None = None
    sensitivity_maps: np.ndarray | None = None
    noise: np.ndarray | None = None
    header: bytes = b""
    acquisition: str = ""
    patient_id: str = ""
    affine: np.ndarray | None = None
    matrix_affine: np.ndarray | None = None
    simulation: str = ""


@dataclass(frozen=True)
class ReadOptions:
    """Options of the user for readers.

    Args:
        axes: names of the array's axes in their order (`mrisem.data.readers.axes`); None: the
            format's own order.
        prewhiten: whether k-space is whitened if the file holds a noise scan.
        kspace_center: position of the zero frequency, ``middle`` or ``corner`` of the axes.
    """

    axes: tuple[str, ...] | None = None
    prewhiten: bool = True
    kspace_center: Literal["middle", "corner"] = "middle"


class Reader(Protocol):
    """Reader of one format; other packages offer theirs as entry point ``mrisem.readers``.

    Attributes:
        suffixes: endings of its files, in lower case, with the dot.
    """

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of its files; an attribute of the class is enough."""

    def accepts(self, path: Path) -> bool:
        """Return whether a file with such an ending has this format."""

    def read(self, path: Path, options: ReadOptions) -> Scan:
        """Read a file; raise an InputError of one line if it is bad."""

    def files(self, path: Path) -> Sequence[Path]:
        """Return the files of the scan; it is read again when one of them changes."""


def check_size(shape: Sequence[int], path: Path) -> None:
    """Raise InputError for an array that is empty or larger than any scan, before it is read."""
    entries = math.prod(shape)
    slices = shape[0] if len(shape) > 3 else 1
    if not 0 < entries <= MAX_ENTRIES or entries > MAX_SLICE_ENTRIES * MAX_SLICES * max(1, slices):
        raise InputError(
            f"an array may have 1 to {MAX_ENTRIES} entries, got shape {tuple(shape)} in {path}; "
            "the file is damaged, or must be split"
        )
    # a compressed archive of a few kilobytes can declare more than fits into memory
    if (need := 8 * entries) > _MEMORY:
        raise InputError(
            f"a scan must fit into memory while it is converted, got {need / 1e9:.0f} GB in {path} "
            f"and {_MEMORY / 1e9:.0f} GB of memory; the file is damaged, or must be split"
        )
