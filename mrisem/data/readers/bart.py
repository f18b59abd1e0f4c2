"""Reading of scans in BART's format: a ``.cfl`` and a ``.hdr`` file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mrisem.data.readers.axes import in_order
from mrisem.data.readers.scan import ReadOptions, Scan, check_size
from mrisem.errors import InputError
from mrisem.files import reading

# Dimensions of BART that a 2-D multi-slice or 3-D scan uses.
_AXES = {0: "y", 1: "x", 2: "partition", 3: "coil", 13: "slice"}


class BartReader:
    """Reader of complex64 values in Fortran order, with a header of up to 16 dimensions.

    Dimension 0 is the readout, 1 and 2 are phase encodes, 3 the coils, 13 the slices. ``data.axes``
    names the dimensions longer than 1, in their order.
    """

    suffixes = (".cfl",)

    def accepts(self, path: Path) -> bool:
        """Return whether a header lies beside the file."""
        return path.is_file() and path.with_suffix(".hdr").is_file()

    def files(self, path: Path) -> Sequence[Path]:
        """Return both files."""
        return [path, path.with_suffix(".hdr")]

    def read(self, path: Path, options: ReadOptions) -> Scan:
        """Read the k-space."""
        array, axes = load_cfl(path), options.axes
        used = [n for n, length in enumerate(array.shape) if length > 1]
        if axes is not None and len(axes) == len(used):
            return Scan(in_order(array.squeeze(), axes, path))
        # Without names for them, maps, echoes or time points cannot be told apart from slices.
        if others := [n for n in used if n not in _AXES]:
            raise InputError(
                f"a .cfl file may be longer than 1 in BART's dimensions {sorted(_AXES)}, got "
                f"dimension {others[0]} of length {array.shape[others[0]]} in {path}; extract one "
                "entry with `bart slice`, or name the dimensions longer than 1 with data.axes"
            )
        if axes is not None:
            raise InputError(
                f"data.axes must name each of the {len(used)} dimensions longer than 1, got "
                f"{','.join(axes)} for {array.shape} in {path}; leave it out for BART's own order"
            )
        # readout and phase encode stay, even with length 1
        kept = [n for n in _AXES if n in used or n in (0, 1)]
        names = tuple(_AXES[n] for n in kept)
        return Scan(in_order(array.reshape([array.shape[n] for n in kept], order="F"), names, path))


def load_cfl(path: Path) -> np.ndarray:
    """Read the values of a ``.cfl`` file, with at least 16 axes."""
    header = path.with_suffix(".hdr")
    with reading(header, "a header of BART", "write it again"):
        lines = header.read_text(encoding="ascii").splitlines()
        lengths = tuple(int(word) for word in lines[lines.index("# Dimensions") + 1].split())
        if not lengths or min(lengths) < 1:
            raise ValueError(f"lengths must be at least 1, got {lengths}")
    check_size(lengths, path)
    if path.stat().st_size != 8 * math.prod(lengths):
        raise InputError(
            f"a .cfl file must have 8 bytes for each value, {8 * math.prod(lengths)} for {lengths},"
            f" got {path.stat().st_size} in {path}; copy both files again"
        )
    values = np.fromfile(path, dtype="<c8").astype(np.complex64)
    return values.reshape(*lengths, *[1] * (16 - len(lengths)), order="F")
