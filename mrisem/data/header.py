"""Facts of an ISMRMRD header; missing ones are derived from the k-space."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError, fromstring

import h5py
import numpy as np

from mrisem.data.contents import as_complex64, dataset
from mrisem.errors import InputError

# A readout at least this much longer than the phase-encode axis counts as oversampled: fastMRI's
# matrices are 640 x 320..396 (1.6 and more), matrices without oversampling at most 4:3.
_OVERSAMPLED = 1.5
_MAX_HEADER = 2**24  # bytes; fastMRI's headers have about 50 000
_MAX_LENGTH = 2**20  # largest plausible length of an axis
_SHORTEST, _LONGEST = 0.01, 1000.0  # range of plausible edges of a voxel, mm


@dataclass(frozen=True)
class Header:
    """Facts of a header; None: it does not state the fact, or states no plausible number.

    Args:
        encoded: ``(readout, phase encodes)``, the size of k-space ``(y, x)``.
        recon: ``(Y, X)`` of reconstructed images.
        padding: first acquired phase-encode column and the column after the last.
        channels: number of receiver coils.
        voxel_mm: distances of columns, of rows, and across a slice, mm.
    """

    encoded: tuple[int, int] | None = None
    recon: tuple[int, int] | None = None
    padding: tuple[int, int] | None = None
    channels: int | None = None
    voxel_mm: tuple[float, float, float] | None = None


def header_bytes(file: h5py.File) -> bytes:
    """Return the text of a file's ISMRMRD header; empty without a header."""
    item = dataset(file, "ismrmrd_header")
    if item is None:
        return b""
    # writers store it as bytes or text, as a scalar or an array of one entry
    text = item[()] if item.dtype.kind in "SO" and item.nbytes <= _MAX_HEADER else None
    if isinstance(text, np.ndarray) and text.size == 1:
        text = text.item()
    text = text.encode() if isinstance(text, str) else text
    if not isinstance(text, bytes):
        raise InputError(
            f"ismrmrd_header of {file.filename} must be text, got {item.dtype} {item.shape}; "
            "remove it, then its facts are derived from the k-space"
        )
    return text


def read_header(file: h5py.File) -> Header:
    """Read a file's header as fastMRI's reader does (``fastmri.data.SliceDataset``).

    Raises:
        InputError: when it is not XML.
    """
    text = header_bytes(file)
    if not text:
        return Header()
    try:
        root = fromstring(text)
    except (ParseError, ValueError, LookupError) as error:
        raise InputError(
            f"ismrmrd_header of {file.filename} must be XML, got: {' '.join(str(error).split())}; "
            "remove it, then its facts are derived from the k-space"
        ) from error
    encoded, recon = (_matrix(root, name) for name in ("encodedSpace", "reconSpace"))
    limits = "encoding//encodingLimits//kspace_encoding_step_1"
    center, last = (_number(root, f"{limits}//{name}", 0) for name in ("center", "maximum"))
    padding = None
    if encoded is not None and center is not None and last is not None:
        # encoding step ``center`` is the zero frequency, which lies at column n // 2
        left = encoded[1] // 2 - center
        padding = left, left + last + 1
    voxels = [_voxel_mm(root, space) for space in ("reconSpace", "encodedSpace")]
    voxel_mm = next((voxel for voxel in voxels if voxel is not None), None)
    return Header(encoded, recon, padding, _number(root, "receiverChannels", 1), voxel_mm)


def _matrix(root: Element, space: str) -> tuple[int, int] | None:
    """Return the matrix size of a space; its x is the readout, y of this package."""
    rows, columns = (_number(root, f"encoding//{space}//matrixSize//{a}", 1) for a in "xy")
    return None if rows is None or columns is None else (rows, columns)


def _voxel_mm(root: Element, space: str) -> tuple[float, float, float] | None:
    """Return the edges of a space's voxels, mm: field of view over matrix; None: implausible."""
    axes = "yxz"  # phase encodes (y) are columns of images, the readout (x) their rows
    sizes = [_value(root, f"encoding//{space}//matrixSize//{axis}") for axis in axes]
    lengths = [_value(root, f"encoding//{space}//fieldOfView_mm//{axis}") for axis in axes]
    if not all(size >= 1 for size in sizes):
        return None
    column, row, across = (length / size for length, size in zip(lengths, sizes, strict=True))
    is_plausible = all(_SHORTEST <= edge <= _LONGEST for edge in (column, row, across))
    return (column, row, across) if is_plausible else None


def _number(root: Element, path: str, minimum: int) -> int | None:
    """Return the whole number of the first such element; None: missing or out of range."""
    value = _value(root, path)
    is_valid = math.isfinite(value) and value.is_integer() and minimum <= value <= _MAX_LENGTH
    return int(value) if is_valid else None


def _value(root: Element, path: str) -> float:
    """Return the number of the first such element; NaN: missing, or not a number."""
    # {*}: headers use several versions of the XML namespace
    element = root.find(".//{*}" + path.replace("//", "//{*}"))
    try:
        return float((element.text if element is not None else None) or "nan")
    except ValueError:
        return math.nan


def complete_header(
    file: h5py.File,
    header: Header,
    shape: tuple[int, int, int, int],
    target: tuple[int, int] | None,
    center: str,
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return padding and image size; facts that the header lacks are derived, with a warning.

    * padding: first column with data in the middle slice, and the column after the last (with a
      dataset ``mask``: all columns).
    * size: size of the target, if there is one; else half the readout, and at most as many columns,
      if ``y >= 1.5 x`` (readout oversampled twice); else ``(y, x)``.

    Args:
        file: open file.
        header: its header.
        shape: ``(slice, coil, y, x)`` of the k-space.
        target: ``(Y, X)`` of the target, or None.
        center: position of the zero frequency, ``middle`` or ``corner``.
    """
    padding, size = header.padding, target or header.recon
    if padding is not None:
        padding = max(0, padding[0]), min(shape[3], padding[1])
    derived = []
    if padding is None or padding[0] >= padding[1]:
        padding = _acquired(file, shape, center)
        derived.append(f"columns {padding[0]} to {padding[1]} acquired")
    if size is None:
        height, width = shape[2:]
        size = (height, width)
        if height >= _OVERSAMPLED * width:
            size = (height // 2, min(width, height // 2))
    if header.recon is None:
        derived.insert(0, f"images are {size[0]} x {size[1]}")
    if derived:
        _warn_derived(file, header, shape, derived)
    return padding, size


def _warn_derived(
    file: h5py.File, header: Header, shape: tuple[int, int, int, int], derived: list[str]
) -> None:
    """Warn of facts that were derived from the k-space."""
    facts = "encoding limits or sizes that fit" if header != Header() else "facts"
    lack = f"has no {facts} in its ismrmrd_header"
    if dataset(file, "ismrmrd_header") is None:
        lack = "has no ismrmrd_header"
    warnings.warn(
        f"{file.filename.rpartition('/')[2]} {lack}: derived from its k-space {shape[2:]}: "
        f"{', '.join(derived)}",
        stacklevel=3,
    )


def _acquired(file: h5py.File, shape: tuple[int, int, int, int], center: str) -> tuple[int, int]:
    """Return the first column with data in the middle slice, and the column after the last."""
    kspace = dataset(file, "kspace")
    # with a mask, zeros may be omitted lines: they tell nothing about the padding
    if kspace is None or dataset(file, "mask") is not None:
        return 0, shape[3]
    occupied = occupied_columns(as_complex64(kspace[shape[0] // 2]))
    if center == "corner":
        occupied = np.fft.fftshift(occupied)
    columns = np.flatnonzero(occupied)
    return (int(columns[0]), int(columns[-1]) + 1) if columns.size else (0, shape[3])


def occupied_columns(kspace: np.ndarray) -> np.ndarray:
    """Return the columns of ``(..., y, x)`` k-space that hold data, ``(x,)`` bool."""
    return (kspace != 0).any(axis=tuple(range(kspace.ndim - 1)))
