"""Datasets of a scan's HDF5 file: their limits are checked, and nothing is read from elsewhere.

HDF5 can point to other files: external links, external storage, virtual datasets. A received file
could so read any file of the user's, or wait for ever on a device. All are refused before they are
followed, but for virtual datasets whose sources lie within the data root.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from h5py import h5g, h5l, h5o

from mrisem.errors import InputError
from mrisem.files import reading

# Limits of what a dataset may declare, far above any scan: a few bytes of HDF5 can declare more
# entries than a machine has memory.
MAX_ENTRIES = 2**36
MAX_SLICE_ENTRIES = 2**26
MAX_SLICES = 2**14
# How often a soft link or a virtual dataset may lead on to the next.
MAX_HOPS = 8
# Text of a file lies in heaps, near its beginning or its end.
_HEAP, _HEAP_REACH = b"GCOL\x01\0\0\0", 2**18
_COMPLEX_FIELDS = (("r", "i"), ("re", "im"), ("real", "imag"))


@contextmanager
def open_scan(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file; all that fails in it is one line.

    Raises:
        InputError: when it is no regular file (a folder, a pipe, a device), or is damaged.
    """
    if not path.is_file():  # opening a pipe would wait for ever
        raise InputError(
            f"{path} must be a file, got {'none' if not path.exists() else 'another thing'}; move "
            "it out of the data set"
        )
    with reading(path, "a complete HDF5 file", "copy it again"):
        _check_heaps(path)
        with h5py.File(path, "r") as file:
            yield file


def dataset(file: h5py.File, name: str, hops: int = 0) -> h5py.Dataset | None:
    """Return a dataset of the file itself, None where the file has none of that name.

    Raises:
        InputError: when it is no dataset, lies in another file, or declares too many entries.
    """
    found = _follow(file, file.id, [part.encode() for part in name.split("/") if part], hops)
    if found is None:
        return None
    if not isinstance(found, h5py.h5d.DatasetID):
        raise InputError(f"{name} must be a dataset, got a group or type in {file.filename}")
    item = h5py.Dataset(found)
    if item.external:
        _refuse(file, name, f"its values are stored in {item.external[0][0]}")
    if item.is_virtual:
        _check_sources(file, item, name, hops)
    _check_shape(item, name, file.filename)
    return item


def complex_type(dtype: np.dtype) -> bool:
    """Whether values are complex numbers, or pairs of numbers named r and i, or real and imag."""
    if dtype.names is None:
        return np.issubdtype(dtype, np.complexfloating)
    names = tuple(name.lower() for name in dtype.names)
    kinds = {dtype[name].kind for name in dtype.names}
    return names in _COMPLEX_FIELDS and kinds <= set("iuf")


def as_complex64(values: np.ndarray) -> np.ndarray:
    """Convert values of a `complex_type`; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if values.dtype.names is None:
            return np.ascontiguousarray(values, dtype=np.complex64)
        result = np.empty(values.shape, dtype=np.complex64)
        result.real, result.imag = (values[name] for name in values.dtype.names)
        return result


def as_float32(values: np.ndarray, name: str, where: str) -> np.ndarray:
    """Convert real numbers.

    Raises:
        InputError: when they are of another type, or not finite as float32.
    """
    if values.dtype.kind not in "iuf":
        raise InputError(
            f"{name} must hold real numbers, got {values.dtype} in {where}; rewrite or remove it"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(result).all():
        raise InputError(
            f"{name} must be finite as float32, got NaN or infinity in {where}; rewrite or remove "
            "it, or set on_error=skip"
        )
    return result


def _check_heaps(path: Path) -> None:
    """Refuse a heap with free space of no length, on which HDF5's own reader spins for ever.

    Source: HDF5 file format specification, section III.E, disk format: global heap.

    Raises:
        ValueError: when there is one.
    """
    with path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        for start in {0, max(0, end - _HEAP_REACH)}:
            stream.seek(start)
            data = stream.read(_HEAP_REACH)
            place = data.find(_HEAP)
            while place >= 0:
                size = int.from_bytes(data[place + 8 : place + 16], "little")
                if not _ends(data[place + 16 : place + size]):
                    raise ValueError(f"the heap at byte {start + place} has no end")
                place = data.find(_HEAP, place + 1)


def _ends(heap: bytes) -> bool:
    """Whether a walk over the objects of a heap, each with a header of 16 bytes, ends."""
    place = 0
    while place + 16 <= len(heap):
        index = int.from_bytes(heap[place : place + 2], "little")
        size = int.from_bytes(heap[place + 8 : place + 16], "little")
        step = 16 + -(-size // 8) * 8 if index else size  # index 0 is free space
        if step == 0:
            return False
        place += step
    return True


def _follow(
    file: h5py.File, group: h5g.GroupID, parts: list[bytes], hops: int
) -> h5py.h5i.ObjectID | None:
    """Open an object by links within the file only; None where it ends."""
    current: h5py.h5i.ObjectID = group
    for n, part in enumerate(parts):
        if part == b".":
            continue
        if not isinstance(current, h5g.GroupID) or not current.links.exists(part):
            return None
        kind = current.links.get_info(part).type
        if kind == h5l.TYPE_SOFT and hops < MAX_HOPS:
            target = current.links.get_val(part)
            start = file["/"].id if target.startswith(b"/") else current
            onward = [step for step in target.split(b"/") if step]
            return _follow(file, start, [*onward, *parts[n + 1 :]], hops + 1)
        if kind != h5l.TYPE_HARD:
            _refuse(file, part.decode(errors="replace"), "it is a link to somewhere else")
        current = h5o.open(current, part)
    return current


def _check_sources(file: h5py.File, item: h5py.Dataset, name: str, hops: int) -> None:
    """Refuse a virtual dataset with a source that leaves the data root, or is not there."""
    folder = Path(file.filename).parent
    split = folder.name.startswith(("multicoil_", "singlecoil_"))
    root = folder.parent if split else folder
    for source in {(part.file_name, part.dset_name) for part in item.virtual_sources()}:
        # '..' behind a symbolic link leads elsewhere than it reads
        resolve = os.path.realpath if ".." in Path(source[0]).parts else os.path.abspath
        path = Path(file.filename if source[0] == "." else resolve(folder / source[0]))
        if "%" in "".join(source) or hops == MAX_HOPS:
            _refuse(file, name, f"its source {source[0]} is a pattern, or leads on too often")
        if not path.is_relative_to(resolve(root)):
            _refuse(file, name, f"its source {source[0]} lies outside {root}")
        with open_scan(path) as other:
            if dataset(other, source[1], hops + 1) is None:
                _refuse(file, name, f"its source {source[0]} has no {source[1]}")


def _check_shape(item: h5py.Dataset, name: str, where: str) -> None:
    """Refuse a dataset without values, or with more than any scan has."""
    shape = item.shape
    if shape is None:
        raise InputError(f"{name} must hold values, got none in {where}; write the file again")
    slices = shape[0] if len(shape) > 2 else 1
    entries = math.prod(shape)
    most = (MAX_SLICES, MAX_SLICE_ENTRIES, MAX_ENTRIES)
    if slices > most[0] or entries > most[1] * max(1, slices) or entries > most[2]:
        raise InputError(
            f"{name} may have at most {most[0]} slices of {most[1]} entries, {most[2]} in all, got "
            f"{shape} in {where}; the file is damaged, or must be split"
        )


def _refuse(file: h5py.File, name: str, reason: str) -> None:
    raise InputError(
        f"'{name}' must lie in {file.filename} itself, but {reason}; write its values into the file"
    )
