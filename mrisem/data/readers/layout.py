"""Reading of files in fastMRI's layout that hold noise samples, so that they are whitened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mrisem.data.contents import dataset, open_scan
from mrisem.data.header import header_bytes
from mrisem.data.readers.arrays import NAMES, begins, scan_of
from mrisem.data.readers.scan import ReadOptions, Scan


class NoiseLayoutReader:
    """Reader of fastMRI's datasets with a dataset ``noise`` ``(coil, n)``."""

    suffixes = (".h5", ".hdf5")

    def accepts(self, path: Path) -> bool:
        """Return whether the file holds both k-space and noise."""
        if not begins(path, b"\x89HDF\r\n\x1a\n"):
            return False
        with open_scan(path) as file:
            return None not in (dataset(file, "kspace"), dataset(file, "noise"))

    def files(self, path: Path) -> Sequence[Path]:
        """Return the file itself."""
        return [path]

    def read(self, path: Path, options: ReadOptions) -> Scan:
        """Read the datasets and attributes."""
        with open_scan(path) as file:
            items = {name: dataset(file, name) for name in NAMES if name != "ismrmrd_header"}
            arrays = {name: item[()] for name, item in items.items() if item is not None}
            arrays |= {
                name: file.attrs[name]
                for name in ("acquisition", "patient_id", "affine")
                if name in file.attrs
            }
            header, simulation = header_bytes(file), str(file.attrs.get("simulation", ""))
        # data.axes is for other formats: this layout has fastMRI's axes
        scan = scan_of(arrays, path, replace(options, axes=None))
        return replace(scan, header=header, simulation=simulation)
