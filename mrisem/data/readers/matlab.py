"""Reading of scans from MATLAB's ``.mat`` files, versions 5 (through SciPy) and 7.3 (HDF5)."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from mrisem.data.contents import complex_type, dataset, open_scan
from mrisem.data.readers.arrays import NAMES, SignedFile, begins, scan_of
from mrisem.data.readers.scan import ReadOptions, Scan, check_size
from mrisem.files import reading

_VERSION_5, _VERSION_73 = b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"
_HDF5 = b"\x89HDF\r\n\x1a\n"


class MatlabReader(SignedFile):
    """Reader of variables: ``kspace``, and others of `mrisem.data.readers.arrays.NAMES`."""

    suffixes, signatures = (".mat",), (_VERSION_5, _VERSION_73, _HDF5)

    def read(self, path: Path, options: ReadOptions) -> Scan:
        """Read the variables."""
        arrays = load_mat(path)
        # MATLAB drops axes of length 1 at the end, such as that of a single coil: add them again
        for name in ("kspace", "sensitivity_maps"):
            rank = len(options.axes or ())
            if name in arrays and arrays[name].ndim < rank:
                shape = arrays[name].shape
                arrays[name] = arrays[name].reshape(*shape, *[1] * (rank - len(shape)))
        return scan_of(arrays, path, options)


def load_mat(path: Path) -> dict[str, np.ndarray]:
    """Read the variables of `NAMES`, or the only variable."""
    return _version_5(path) if begins(path, _VERSION_5) else _version_73(path)


def _version_5(path: Path) -> dict[str, np.ndarray]:
    """Read a file of version 5 through SciPy."""
    from scipy.io import loadmat, whosmat

    with reading(path, "a complete .mat file", "save it again, with -v7 or -v7.3"):
        # names and shapes first: variables that are not used stay unread
        content = whosmat(path)
        names = [name for name, _, _ in content if name in NAMES or len(content) == 1]
        for name, shape, _ in content:
            if name in names:
                check_size(shape, path)
        loaded = loadmat(path, variable_names=names)
        return {name: loaded[name] for name in names}


def _version_73(path: Path) -> dict[str, np.ndarray]:
    """Read a file of version 7.3, which is HDF5."""
    with open_scan(path) as file:
        # groups that begin with '#' are MATLAB's own
        keys = [key for key in file if not key.startswith("#")]
        names = [key for key in keys if key in NAMES or len(keys) == 1]
        items = {name: dataset(file, name) for name in names}
        return {name: _values(item) for name, item in items.items() if item is not None}


def _values(item: h5py.Dataset) -> np.ndarray:
    """Return the values of a variable in MATLAB's order of the axes."""
    values: np.ndarray = item[()].T  # HDF5 holds them in the reverse order
    # text is an array of 16-bit characters
    if item.attrs.get("MATLAB_class") == b"char" and not complex_type(values.dtype):
        return np.array("".join(map(chr, values.reshape(-1))))
    return values
