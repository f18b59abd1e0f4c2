"""Reading of scans from NumPy's ``.npy`` and ``.npz`` files; base of the reader of ``.mat``."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrisem.data.contents import as_complex64, as_float32, complex_type
from mrisem.data.readers.axes import in_order, without_coils
from mrisem.data.readers.scan import ReadOptions, Scan, check_size
from mrisem.errors import InputError
from mrisem.files import reading

TARGETS = ("target", "reconstruction_rss", "reconstruction_esc")
# names of the arrays that a file may hold
NAMES = (
    *("kspace", "mask", "noise", "sensitivity_maps", "affine", "acquisition", "patient_id"),
    *("ismrmrd_header", *TARGETS),
)


class SignedFile:
    """Base of formats whose scans are one file with a signature at its beginning.

    Attributes:
        signatures: possible first bytes of such files.
    """

    signatures: tuple[bytes, ...] = ()

    def accepts(self, path: Path) -> bool:
        """Return whether the file begins with one of the signatures."""
        return any(begins(path, signature) for signature in self.signatures)

    def files(self, path: Path) -> Sequence[Path]:
        """Return the file itself."""
        return [path]


class NpyReader(SignedFile):
    """Reader of one array: the k-space."""

    suffixes, signatures = (".npy",), (b"\x93NUMPY",)

    def read(self, path: Path, options: ReadOptions) -> Scan:
        """Read the array."""
        return scan_of({"kspace": load_npy(path)}, path, options)


class NpzReader(SignedFile):
    """Reader of several arrays: ``kspace``, and others of `NAMES`."""

    suffixes, signatures = (".npz",), (b"PK",)

    def read(self, path: Path, options: ReadOptions) -> Scan:
        """Read the arrays with a name in `NAMES`, or the only array."""
        return scan_of(load_npz(path), path, options)


def load_npy(path: Path) -> np.ndarray:
    """Read an array without Python objects, which could run code."""
    with reading(path, "a complete .npy file without Python objects", "save it with numpy.save"):
        # the map reads only the header: a size that no memory holds is refused first
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        check_size(mapped.shape, path)
        return np.array(mapped)


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of `NAMES` from an archive, without Python objects."""
    with reading(path, "a complete .npz file without Python objects", "save it with numpy.savez"):
        with zipfile.ZipFile(path) as archive:
            for item in archive.infolist():
                # decompressed size in bytes; complex64 values have 8
                check_size((max(1, item.file_size // 8),), path)
        with np.load(path, allow_pickle=False) as content:
            names = [n for n in content.files if n in NAMES or len(content.files) == 1]
            return {name: content[name] for name in names}


def begins(path: Path, signature: bytes) -> bool:
    """Return whether a regular file begins with these bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(signature)) == signature


def scan_of(arrays: Mapping[str, Any], path: Path, options: ReadOptions) -> Scan:
    """Make a scan from arrays with names.

    Args:
        arrays: ``kspace``, and others of `NAMES`; a single array is the k-space.
        path: file of the arrays.
        options: options with the names of the axes. Targets have the same axes without the coils;
            a mask has x, or y and x in their order.

    Raises:
        InputError: when there is no k-space, or the type or shape of an array does not fit.
    """
    name = "kspace" if "kspace" in arrays or len(arrays) != 1 else next(iter(arrays))
    if name not in arrays:
        raise InputError(
            f"{path} must hold an array 'kspace', got {sorted(arrays)[:20]}; name the k-space so"
        )
    axes, target = options.axes, next((n for n in TARGETS if n in arrays), None)
    kspace = in_order(_complex(arrays[name], name, path), axes, path)
    images = maps = noise = mask = affine = None
    if target is not None:
        # in_order adds a coil axis of length 1, which images do not have
        values = as_float32(arrays[target], target, str(path))
        images = in_order(values, without_coils(axes, values.ndim), path)[:, 0]
    if "sensitivity_maps" in arrays:
        maps = _complex(arrays["sensitivity_maps"], "sensitivity_maps", path)
        maps = in_order(maps, axes, path)
    if "noise" in arrays:
        noise = _complex(arrays["noise"], "noise", path)
    if "mask" in arrays:
        mask = _mask(arrays["mask"], axes)
    if "affine" in arrays:
        affine = as_float32(arrays["affine"], "affine", str(path)).astype(np.float64)
    acquisition, subject, header = (
        _text(arrays.get(key)) for key in ("acquisition", "patient_id", "ismrmrd_header")
    )
    return Scan(*(kspace, mask, images, maps, noise, header.encode(), acquisition, subject, affine))


def _complex(array: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Convert complex values to complex64; raise InputError for real ones."""
    if not complex_type(array.dtype):
        raise InputError(
            f"{name} must be complex, got {array.dtype} {array.shape} in {path}; join real and "
            "imaginary parts"
        )
    return as_complex64(array)


def _mask(mask: np.ndarray, axes: Sequence[str] | None) -> np.ndarray:
    """Return a mask as ``(x,)`` or ``(y, x)``."""
    # MATLAB has no vectors: it stores (x,) as (1, x) or (x, 1)
    values = mask.reshape(-1) if mask.ndim and max(mask.shape) == mask.size else mask
    order = [name for name in axes or () if name in ("y", "x")]
    return values.T if values.ndim == 2 and order == ["x", "y"] else values


def _text(value: Any) -> str:
    """Return the text in an array of one string; empty: there is none."""
    if value is None or np.asarray(value).size != 1:
        return ""
    item = np.asarray(value).reshape(-1)[0]
    return item.decode(errors="replace") if isinstance(item, bytes) else str(item)
