"""Reading of files that belong to scans: a mask for all of them, and sensitivity maps."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mrisem.data.contents import as_complex64, complex_type, dataset, open_scan
from mrisem.data.readers.arrays import load_npy, load_npz
from mrisem.data.readers.bart import load_cfl
from mrisem.data.readers.matlab import load_mat
from mrisem.errors import InputError
from mrisem.physics.coils import ESTIMATORS

if TYPE_CHECKING:
    from mrisem.data.slices import VolumeSlice

IN_FILE = "in_file"
_MAPS = (".h5", ".hdf5", ".npy", ".npz", ".mat", ".cfl")


@lru_cache(maxsize=4)
def load_mask(path: Path) -> np.ndarray:
    """Read a mask ``(x,)`` or ``(y, x)``: the array ``mask`` of a file, or its only array.

    Raises:
        InputError: when there is no such file or array.
    """
    values = _load(path, "mask")
    is_vector = values.ndim > 0 and max(values.shape) == values.size
    return values.reshape(-1) if is_vector else values.squeeze()


def load_maps(part: VolumeSlice, choice: str) -> Tensor | None:
    """Read the sensitivity maps ``(coil, y, x)`` of a slice, without normalisation.

    Args:
        part: the slice.
        choice: ``data.sensitivity_maps``: ``in_file``, or the path of a file with maps
            ``(slice, coil, y, x)``, or of a folder of files with the scans' stems; an estimator:
            there is nothing to read.

    Returns:
        maps complex64; None for an estimator.

    Raises:
        InputError: when there are no maps, or they do not fit the k-space.
    """
    if choice in ESTIMATORS:
        return None
    volume = part.volume
    file = volume.stored if choice == IN_FILE else _maps_file(Path(choice), volume.path.stem)
    # messages name the scan, not its converted file in the cache
    named_file = volume.path if choice == IN_FILE else file
    maps = _read_slice(file, part.slice, volume.shape, named_file)
    if not np.isfinite(maps).all() or not maps.any():
        raise InputError(
            f"sensitivity maps must be finite and not all zero, got others in {named_file}, slice "
            f"{part.slice}; rewrite them, or set data.sensitivity_maps=torch"
        )
    return torch.from_numpy(maps)


def _read_slice(
    path: Path, index: int, shape: tuple[int, int, int, int], named_file: Path
) -> np.ndarray:
    """Read the maps ``(coil, y, x)`` complex64 of a slice.

    Args:
        path: file of the maps.
        index: index of the slice.
        shape: ``(slice, coil, y, x)`` of the k-space.
        named_file: file that messages name; another one than ``path``: that is converted, HDF5.
    """
    if path.suffix.lower() in _MAPS[:2] or path != named_file:
        with open_scan(path) as file:
            item = dataset(file, "sensitivity_maps")
            if item is None:
                raise InputError(
                    f"{named_file} must hold a dataset 'sensitivity_maps', got "
                    f"{sorted(file)[:20]}; set data.sensitivity_maps=torch, or a path"
                )
            _check(item.shape, item.dtype, shape, named_file)
            return as_complex64(item[index])  # other slices stay unread
    values = _load(path, "sensitivity_maps")
    if path.suffix.lower() == ".cfl":  # readout, phase encode, partition, coil, ..., slice
        values = np.moveaxis(values.squeeze(), (0, 1, 2), (-2, -1, -3))
    values = values[None] if values.ndim == 3 else values
    _check(values.shape, values.dtype, shape, named_file)
    return as_complex64(values[index])


def _check(
    shape: tuple[int, ...], dtype: np.dtype, kspace_shape: tuple[int, int, int, int], path: Path
) -> None:
    """Raise InputError unless maps are complex and have the shape of the k-space."""
    if tuple(shape) != kspace_shape or not complex_type(dtype):
        raise InputError(
            f"sensitivity_maps must be complex (slice, coil, y, x) = {kspace_shape}, got {dtype} "
            f"{tuple(shape)} in {path}; rewrite them"
        )


def _maps_file(path: Path, stem: str) -> Path:
    """Return a file of maps itself, or from a folder the file with the scan's stem."""
    if not path.is_dir():
        return path
    for ending in _MAPS:
        if (path / f"{stem}{ending}").is_file():
            return path / f"{stem}{ending}"
    raise InputError(
        f"a folder of sensitivity maps must hold a file {stem} that ends in {', '.join(_MAPS)}, "
        f"got none in {path}; add it, or set data.sensitivity_maps=torch"
    )


def _load(path: Path, name: str) -> np.ndarray:
    """Read the array of a name from a file, or its only array."""
    ending = path.suffix.lower()
    if not path.is_file():
        raise InputError(
            f"{name} must lie in a file, got {path}, which does not exist; correct the path"
        )
    if ending in (".h5", ".hdf5"):
        with open_scan(path) as file:
            item = dataset(file, name)
            arrays = {} if item is None else {name: item[()]}
    elif ending in (".npy", ".cfl"):
        return load_npy(path) if ending == ".npy" else load_cfl(path)
    elif ending in (".npz", ".mat"):
        arrays = load_npz(path) if ending == ".npz" else load_mat(path)
    else:
        raise InputError(
            f"{name} must lie in a file that ends in {', '.join(_MAPS)}, got {path}; convert it"
        )
    if name not in arrays and len(arrays) != 1:
        raise InputError(f"{path} must hold an array {name!r}, got {sorted(arrays)[:20]}; name it")
    return arrays.get(name, next(iter(arrays.values())))
