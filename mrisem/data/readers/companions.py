"""What may lie beside scans: a mask for all of them, and sensitivity maps."""

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
    from mrisem.data.slices import SliceOf

IN_FILE = "in_file"
_MAPS = (".h5", ".hdf5", ".npy", ".npz", ".mat", ".cfl")


@lru_cache(maxsize=4)
def load_mask(path: Path) -> np.ndarray:
    """Read a mask ``(x,)`` or ``(y, x)``: the array ``mask`` of a file, or its only array.

    Raises:
        InputError: when there is none.
    """
    values = _load(path, "mask")
    flat = values.ndim > 0 and max(values.shape) == values.size
    return values.reshape(-1) if flat else values.squeeze()


def load_maps(part: SliceOf, choice: str) -> Tensor | None:
    """Read a slice's sensitivity maps ``(coil, y, x)``, divided by nothing yet.

    Args:
        part: the slice.
        choice: an estimator, for which there are none; ``in_file``, or a path: a file with maps
            ``(slice, coil, y, x)``, or a folder of files with the scans' stems.

    Raises:
        InputError: when there are none, or they do not fit the k-space.
    """
    if choice in ESTIMATORS:
        return None
    volume = part.volume
    place = volume.stored if choice == IN_FILE else _file_of(Path(choice), volume.path.stem)
    where = volume.path if choice == IN_FILE else place
    maps = _one_slice(place, part.slice, volume.shape, where)
    if not np.isfinite(maps).all() or not maps.any():
        raise InputError(
            f"sensitivity maps must be finite and not all zero, got others in {where}, slice "
            f"{part.slice}; rewrite them, or set data.sensitivity_maps=torch"
        )
    return torch.from_numpy(maps)


def _one_slice(
    place: Path, number: int, shape: tuple[int, int, int, int], where: Path
) -> np.ndarray:
    """``(coil, y, x)`` complex64; of HDF5 only the slice is read."""
    if place.suffix.lower() in _MAPS[:2] or place != where:
        with open_scan(place) as file:
            item = dataset(file, "sensitivity_maps")
            if item is None:
                raise InputError(
                    f"{where} must hold a dataset 'sensitivity_maps', got {sorted(file)[:20]}; set "
                    "data.sensitivity_maps=torch, or a path"
                )
            _check(item.shape, item.dtype, shape, where)
            return as_complex64(item[number])
    values = _load(place, "sensitivity_maps")
    if place.suffix.lower() == ".cfl":  # readout, phase encode, partition, coil, ..., slice
        values = np.moveaxis(values.squeeze(), (0, 1, 2), (-2, -1, -3))
    values = values[None] if values.ndim == 3 else values
    _check(values.shape, values.dtype, shape, where)
    return as_complex64(values[number])


def _check(
    got: tuple[int, ...], dtype: np.dtype, shape: tuple[int, int, int, int], where: Path
) -> None:
    if tuple(got) != shape or not complex_type(dtype):
        raise InputError(
            f"sensitivity_maps must be complex (slice, coil, y, x) = {shape}, got {dtype} "
            f"{tuple(got)} in {where}; rewrite them"
        )


def _file_of(path: Path, stem: str) -> Path:
    """Return the file of maps itself, or that of a scan in a folder."""
    if not path.is_dir():
        return path
    for ending in _MAPS:
        if (path / f"{stem}{ending}").is_file():
            return path / f"{stem}{ending}"
    raise InputError(
        f"a folder of sensitivity maps must hold a file {stem} that ends in {', '.join(_MAPS)}, "
        f"{path} has none; add it, or set data.sensitivity_maps=torch"
    )


def _load(path: Path, name: str) -> np.ndarray:
    """Read the array of that name, or a file's only array."""
    ending = path.suffix.lower()
    if not path.is_file():
        raise InputError(f"{name} must lie in a file, there is no {path}; correct the path")
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
