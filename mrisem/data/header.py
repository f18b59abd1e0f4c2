"""Facts of an ISMRMRD header; what it does not say follows from the k-space."""

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
# matrices are 640 x 320..396 (1.6 and more), those without oversampling at most 4:3.
_OVERSAMPLED = 1.5
_MAX_HEADER = 2**24  # bytes; fastMRI's have about 50 000
_MAX_LENGTH = 2**20  # of an axis
_SHORTEST, _LONGEST = 0.01, 1000.0  # edges of voxels that a header may state, mm


@dataclass(frozen=True)
class Header:
    """What a header says; None where it says nothing, or no sensible number.

    Args:
        encoded: ``(readout, phase encodes)``, the size of k-space ``(y, x)``.
        recon: ``(Y, X)`` of reconstructed images.
        padding: first acquired phase-encode column and the one after the last.
        channels: number of receiver coils.
        voxel_mm: mm from column to column, from row to row, and across a slice.
    """

    encoded: tuple[int, int] | None = None
    recon: tuple[int, int] | None = None
    padding: tuple[int, int] | None = None
    channels: int | None = None
    voxel_mm: tuple[float, float, float] | None = None


def header_bytes(file: h5py.File) -> bytes:
    """Text of a file's ISMRMRD header, empty where there is none."""
    item = dataset(file, "ismrmrd_header")
    if item is None:
        return b""
    text = item[()] if item.dtype.kind in "SO" and item.nbytes <= _MAX_HEADER else None
    if isinstance(text, np.ndarray) and text.size == 1:
        text = text.item()
    text = text.encode() if isinstance(text, str) else text
    if not isinstance(text, bytes):
        raise InputError(
            f"ismrmrd_header of {file.filename} must be text, got {item.dtype} {item.shape}; "
            "remove it to have its facts derived"
        )
    return text


def read_header(file: h5py.File) -> Header:
    """Read a file's header, as fastMRI's reader understands it.

    Source of the padding: ``fastmri.data.SliceDataset``.

    Raises:
        InputError: when it is no XML.
    """
    text = header_bytes(file)
    if not text:
        return Header()
    try:
        root = fromstring(text)
    except (ParseError, ValueError, LookupError) as error:
        raise InputError(
            f"ismrmrd_header of {file.filename} must be XML, got: {' '.join(str(error).split())}; "
            "remove it to have its facts derived"
        ) from error
    encoded, recon = (_matrix(root, name) for name in ("encodedSpace", "reconSpace"))
    limits = "encoding//encodingLimits//kspace_encoding_step_1"
    center, last = (_number(root, f"{limits}//{name}", 0) for name in ("center", "maximum"))
    padding = None
    if encoded is not None and center is not None and last is not None:
        left = encoded[1] // 2 - center
        padding = left, left + last + 1
    voxels = [_voxel_mm(root, space) for space in ("reconSpace", "encodedSpace")]
    stated = next((voxel for voxel in voxels if voxel is not None), None)
    return Header(encoded, recon, padding, _number(root, "receiverChannels", 1), stated)


def _matrix(root: Element, space: str) -> tuple[int, int] | None:
    """Size of a space's matrix: x of it is the readout, our y."""
    rows, columns = (_number(root, f"encoding//{space}//matrixSize//{a}", 1) for a in "xy")
    return None if rows is None or columns is None else (rows, columns)


def _voxel_mm(root: Element, space: str) -> tuple[float, float, float] | None:
    """Edges of a space's voxels: field of view over matrix; None where that makes no sense."""
    axes = "yxz"  # phase encodes are our columns, the readout our rows
    sizes = [_value(root, f"encoding//{space}//matrixSize//{axis}") for axis in axes]
    lengths = [_value(root, f"encoding//{space}//fieldOfView_mm//{axis}") for axis in axes]
    if not all(size >= 1 for size in sizes):
        return None
    column, row, across = (length / size for length, size in zip(lengths, sizes, strict=True))
    sensible = all(_SHORTEST <= edge <= _LONGEST for edge in (column, row, across))
    return (column, row, across) if sensible else None


def _number(root: Element, path: str, least: int) -> int | None:
    """Whole number of the first such element; None where there is none in the sensible range."""
    value = _value(root, path)
    whole = math.isfinite(value) and value.is_integer() and least <= value <= _MAX_LENGTH
    return int(value) if whole else None


def _value(root: Element, path: str) -> float:
    """Number of the first such element; NaN where there is none."""
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
    """Return padding and image size; what the header leaves out is derived, with a warning.

    * padding: what lies outside the first and last column that is not zero throughout the middle
      slice (with a ``mask`` dataset: no padding, because zeros may be lines left out).
    * size: the target's, if there is one; else half the readout, and as many columns at most, where
      ``y >= 1.5 x`` (readout oversampled twice); else ``(y, x)``.

    Args:
        file: open file.
        header: what its header says.
        shape: ``(slice, coil, y, x)`` of the k-space.
        target: ``(Y, X)`` of the target, or None.
        center: where the centre of k-space lies, ``middle`` or ``corner``.
    """
    padding, size = header.padding, target or header.recon
    if padding is not None:
        padding = max(0, padding[0]), min(shape[3], padding[1])
    missing = []
    if padding is None or padding[0] >= padding[1]:
        padding = _occupied(file, shape, center)
        missing.append(f"columns {padding[0]} to {padding[1]} acquired")
    if size is None:
        height, width = shape[2:]
        size = (height, width)
        if height >= _OVERSAMPLED * width:
            size = (height // 2, min(width, height // 2))
    if header.recon is None:
        missing.insert(0, f"images are {size[0]} x {size[1]}")
    if missing:
        name = file.filename.rpartition("/")[2]
        what = "encoding limits or sizes that fit" if header != Header() else "facts"
        lack = f"has no {what} in its ismrmrd_header"
        if dataset(file, "ismrmrd_header") is None:
            lack = "has no ismrmrd_header"
        warnings.warn(
            f"{name} {lack}: derived from its k-space {shape[2:]}: {', '.join(missing)}",
            stacklevel=2,
        )
    return padding, size


def _occupied(file: h5py.File, shape: tuple[int, int, int, int], center: str) -> tuple[int, int]:
    """First column of the middle slice that is not all zero, and the one after the last."""
    kspace = dataset(file, "kspace")
    if kspace is None or dataset(file, "mask") is not None:
        return 0, shape[3]
    occupied = occupied_columns(as_complex64(kspace[shape[0] // 2]))
    if center == "corner":
        occupied = np.fft.fftshift(occupied)
    columns = np.flatnonzero(occupied)
    return (int(columns[0]), int(columns[-1]) + 1) if columns.size else (0, shape[3])


def occupied_columns(kspace: np.ndarray) -> np.ndarray:
    """Whether each column of ``(..., y, x)`` k-space holds anything but zeros, ``(x,)`` bool."""
    return (kspace != 0).any(axis=tuple(range(kspace.ndim - 1)))
