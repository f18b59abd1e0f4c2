"""Safe reading of datasets from a scan's HDF5 file: sizes are checked, other files refused.

HDF5 can point to other files: external links, external storage, virtual datasets. With them a
received file could read any file of the user, or wait forever on a device. All are refused before
they are followed, except virtual datasets whose sources lie within the data root.
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
# Largest number of soft links or virtual datasets in a chain.
MAX_HOPS = 8
# Signature of a global heap, which holds the text of a file; heaps lie near its beginning or end.
_HEAP, _HEAP_REACH = b"GCOL\x01\0\0\0", 2**18
# Names that programs give to the real and imaginary part of a complex number.
_COMPLEX_FIELDS = (("r", "i"), ("re", "im"), ("real", "imag"))


@contextmanager
def open_scan(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Raises:
        InputError: when it is no regular file (but a folder, pipe or device), or is damaged; also
            for any error while it is open.
    """
    if not path.is_file():  # opening a pipe would wait forever
        raise InputError(
            f"{path} must be a regular file, got "
            f"{'none of that name' if not path.exists() else 'a folder, pipe or device'}; move it "
            "out of the data set"
        )
    with reading(path, "a complete HDF5 file", "copy it again"):
        _check_heaps(path)
        with h5py.File(path, "r") as file:
            yield file


def dataset(file: h5py.File, name: str, hops: int = 0) -> h5py.Dataset | None:
    """Return a dataset of the file; None: the file has none of that name.

    Args:
        file: open file.
        name: path of the dataset in the file.
        hops: number of links that led here.

    Raises:
        InputError: when it is no dataset, lies in another file, or declares too many entries.
    """
    identifier = _follow(file, file.id, [part.encode() for part in name.split("/") if part], hops)
    if identifier is None:
        return None
    if not isinstance(identifier, h5py.h5d.DatasetID):
        raise InputError(
            f"{name} must be a dataset, got a group or type in {file.filename}; rename it"
        )
    item = h5py.Dataset(identifier)
    if item.external:
        _refuse(file, name, f"its values are stored in {item.external[0][0]}")
    if item.is_virtual:
        _check_sources(file, item, name, hops)
    _check_shape(item, name, file.filename)
    return item


def complex_type(dtype: np.dtype) -> bool:
    """Return whether values are complex, or pairs named as in ``_COMPLEX_FIELDS``."""
    if dtype.names is None:
        return np.issubdtype(dtype, np.complexfloating)
    names = tuple(name.lower() for name in dtype.names)
    kinds = {dtype[name].kind for name in dtype.names}
    return names in _COMPLEX_FIELDS and kinds <= set("iuf")


def as_complex64(values: np.ndarray) -> np.ndarray:
    """Convert values of a `complex_type`; values too large for float32 become infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if values.dtype.names is None:
            return np.ascontiguousarray(values, dtype=np.complex64)
        result = np.empty(values.shape, dtype=np.complex64)
        result.real, result.imag = (values[name] for name in values.dtype.names)
        return result


def as_float32(values: np.ndarray, name: str, where: str) -> np.ndarray:
    """Convert real numbers to float32.

    Args:
        values: numbers of any real type.
        name: name of the array, for messages.
        where: file and slice, for messages.

    Raises:
        InputError: when values are not real, or not finite as float32.
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
    """Refuse a heap with free space of length 0, on which the HDF5 library loops forever.

    Source: HDF5 file format specification, section III.E, disk format: global heap.

    Raises:
        ValueError: when the file has such a heap.
    """
    with path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        for start in {0, max(0, end - _HEAP_REACH)}:
            stream.seek(start)
            data = stream.read(_HEAP_REACH)
            offset = data.find(_HEAP)
            while offset >= 0:
                # 8 bytes signature, then the heap's size of 8 bytes, then its objects
                size = int.from_bytes(data[offset + 8 : offset + 16], "little")
                if not _ends(data[offset + 16 : offset + size]):
                    raise ValueError(f"the heap at byte {start + offset} has no end")
                offset = data.find(_HEAP, offset + 1)


def _ends(heap: bytes) -> bool:
    """Return whether a walk over the objects of a heap ends."""
    offset = 0
    while offset + 16 <= len(heap):
        # header of an object, 16 bytes: index (2), references (2), reserved (4), size (8)
        index = int.from_bytes(heap[offset : offset + 2], "little")
        size = int.from_bytes(heap[offset + 8 : offset + 16], "little")
        # An object is padded to 8 bytes, without its header. Index 0 is free space, with it.
        step = 16 + -(-size // 8) * 8 if index else size
        if step == 0:
            return False
        offset += step
    return True


def _follow(
    file: h5py.File, group: h5g.GroupID, parts: list[bytes], hops: int
) -> h5py.h5i.ObjectID | None:
    """Open an object through links within the file only; None: a part of the path is missing."""
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
            # continue at the link's target, with the rest of the path behind it
            steps = [step for step in target.split(b"/") if step]
            return _follow(file, start, [*steps, *parts[n + 1 :]], hops + 1)
        if kind != h5l.TYPE_HARD:
            _refuse(file, part.decode(errors="replace"), "it is a link to somewhere else")
        current = h5o.open(current, part)
    return current


def _check_sources(file: h5py.File, item: h5py.Dataset, name: str, hops: int) -> None:
    """Refuse a virtual dataset with a source outside the data root, or with a missing one."""
    folder = Path(file.filename).parent
    split = folder.name.startswith(("multicoil_", "singlecoil_"))
    root = folder.parent if split else folder
    for source in {(part.file_name, part.dset_name) for part in item.virtual_sources()}:
        # '..' behind a symbolic link leads elsewhere than the text of the path says
        resolve = os.path.realpath if ".." in Path(source[0]).parts else os.path.abspath
        path = Path(file.filename if source[0] == "." else resolve(folder / source[0]))
        # HDF5 fills a '%b' with numbers: such a pattern names files that are not checked here
        if "%" in "".join(source) or hops == MAX_HOPS:
            _refuse(file, name, f"its source {source[0]} is a pattern, or a chain of {MAX_HOPS}")
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
    too_many = entries > MAX_SLICE_ENTRIES * max(1, slices) or entries > MAX_ENTRIES
    if slices > MAX_SLICES or too_many:
        raise InputError(
            f"{name} may have at most {MAX_SLICES} slices of {MAX_SLICE_ENTRIES} entries, "
            f"{MAX_ENTRIES} in all, got {shape} in {where}; the file is damaged, or must be split"
        )


def _refuse(file: h5py.File, name: str, reason: str) -> None:
    """Raise InputError for a dataset whose values lie in another file."""
    raise InputError(
        f"'{name}' must lie in {file.filename} itself, but {reason}; write its values into the file"
    )
