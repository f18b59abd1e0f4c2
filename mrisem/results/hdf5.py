"""HDF5 files of unknown origin: opened, and their numbers and text checked before use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from mrisem.data.contents import dataset
from mrisem.files import reading

_MAX_BYTES = 2**31  # of a dataset: a few megabytes of a file can declare any shape


@contextmanager
def open_hdf5(path: Path, fix: str = "make it again") -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; any error while it is open is an InputError of one line."""
    with reading(path, "a complete HDF5 file", fix):
        if not path.is_file():
            raise ValueError("there is no such file")
        with h5py.File(path, "r") as content:
            yield content


def numbers_of(content: h5py.File, name: str, ndim: int) -> h5py.Dataset | None:
    """Return a dataset of numbers; None: the file has none of that name.

    Args:
        content: open file.
        name: name of the dataset.
        ndim: number of its axes.

    Raises:
        ValueError: when it lies in other files, or is no array of numbers with so many axes.
    """
    data = dataset(content, name)
    if data is None:
        return None
    # outputs have no data root within which other files would be allowed
    if data.is_virtual:
        raise ValueError(f"{name} must lie in the file, got parts of other files")
    if data.dtype.kind not in "biufc" or data.ndim != ndim:
        raise ValueError(f"{name} must hold numbers of rank {ndim}, got {data.dtype} {data.shape}")
    if data.size * data.dtype.itemsize > _MAX_BYTES:
        raise ValueError(f"{name} must have at most {_MAX_BYTES} bytes, got shape {data.shape}")
    return data


def text_of(content: h5py.File, name: str) -> str:
    """Return an attribute as text; empty: the file has none of that name."""
    value = content.attrs.get(name, "")
    return value.decode() if isinstance(value, bytes) else str(value)
