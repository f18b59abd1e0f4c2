"""What a reader returns, and what it is told."""

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

_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # bytes of the machine


@dataclass(frozen=True)
class Scan:
    """One scan, as any format holds it.

    Args:
        kspace: ``(slice, coil, y, x)`` complex64, zero where nothing was acquired.
        mask: ``(x,)`` or ``(y, x)``, not zero where sampled; None: it follows from the zeros.
        target: ``(slice, Y, X)`` float32 magnitudes; None: of a fully sampled scan they are made.
        sensitivity_maps: ``(slice, coil, y, x)`` complex64, or None.
        noise: ``(coil, n)`` complex64 samples of a noise scan, or None.
        header: bytes of the ISMRMRD header; empty without one.
        acquisition: name of the sequence; empty where the file names none.
        patient_id: the subject; empty where the file names none.
        affine: ``(4, 4)`` float64, (column, row, slice) of the target's image to RAS+ mm, or None.
        matrix_affine: the same of an image of the whole k-space matrix, or None.
        simulation: how the file says that it was simulated; empty where it says nothing.
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
    """Options of the user that a reader follows.

    Args:
        axes: names of the array's axes in their order (`mrisem.data.readers.axes`); None: the
            format's own order.
        prewhiten: whether k-space is whitened where the file holds a noise scan.
        kspace_center: where the zero frequency lies, in the ``middle`` of the axes or the
            ``corner``.
    """

    axes: tuple[str, ...] | None = None
    prewhiten: bool = True
    kspace_center: Literal["middle", "corner"] = "middle"


class Reader(Protocol):
    """One format; packages of their own name theirs as entry point ``mrisem.readers``.

    Attributes:
        suffixes: endings of its files, in lower case, with the dot.
    """

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of its files; an attribute of the class will do."""

    def accepts(self, path: Path) -> bool:
        """Whether the content of a file with such an ending is of this format."""

    def read(self, path: Path, options: ReadOptions) -> Scan:
        """Read a file; an InputError of one line where it is bad."""

    def files(self, path: Path) -> Sequence[Path]:
        """Return the files that the scan consists of; where one changes it is read again."""


def check_size(shape: Sequence[int], path: Path) -> None:
    """Refuse an array without values, or with more than any scan has, before it is read."""
    entries = math.prod(shape)
    slices = shape[0] if len(shape) > 3 else 1
    if not 0 < entries <= MAX_ENTRIES or entries > MAX_SLICE_ENTRIES * MAX_SLICES * max(1, slices):
        raise InputError(
            f"an array may have 1 to {MAX_ENTRIES} entries, got shape {tuple(shape)} in {path}; "
            "the file is damaged, or must be split"
        )
    # a compressed archive of some kilobytes can declare more than fits into memory
    if (need := 8 * entries) > _MEMORY:
        raise InputError(
            f"a scan must fit into memory while it is converted, got {need / 1e9:.0f} GB in {path} "
            f"and {_MEMORY / 1e9:.0f} GB of memory; the file is damaged, or must be split"
        )
