"""fastMRI's own slice reader, for one file at a time, also without an ISMRMRD header.

Kept apart from `volumes` because importing fastmri takes seconds.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fastmri.data.mri_data import FastMRIRawDataSample, SliceDataset

from mrisem.data.volumes import occupied_columns

# A readout at least this much longer than the phase-encode axis counts as oversampled: fastMRI's
# matrices are 640 x 320..396 (1.6 and more), those without oversampling at most 4:3.
_OVERSAMPLED = 1.5


class VolumeReader(SliceDataset):
    """fastMRI's `SliceDataset` over the slices of one file.

    ``reader[i]`` is fastMRI's ``(kspace, mask, target, attributes, file name, slice)``.

    Args:
        path: HDF5 file with ``kspace`` ``(slice, coil, y, x)``.
        n_slices: where the file was inspected before, so that its header is not read again.
    """

    def __init__(self, path: Path, n_slices: int | None = None):
        # Not the parent's constructor: it reads every file of a folder and stops at the first bad
        # one. What it sets is set here, for one file.
        self.transform = None
        self.recons_key = "reconstruction_rss"
        self.metadata: dict[str, Any] = {}
        if n_slices is None:
            self.metadata, n_slices = self._retrieve_metadata(path)
        self.raw_samples = [FastMRIRawDataSample(path, i, self.metadata) for i in range(n_slices)]

    def _retrieve_metadata(self, fname: Path) -> tuple[dict[str, Any], int]:
        """Header facts, as fastMRI names them, and the number of slices."""
        with h5py.File(fname, "r") as file:
            if "ismrmrd_header" in file:
                return super()._retrieve_metadata(fname)
            return _derived_metadata(file, fname.name), file["kspace"].shape[0]


def _derived_metadata(file: h5py.File, name: str) -> dict[str, Any]:
    """Header facts that follow from the k-space itself.

    * padding: what lies outside the first and last column that is not zero throughout the middle
      slice (with a ``mask`` dataset: no padding, because zeros may be lines left out).
    * reconstruction size: the target's, if there is one; else half the readout, and as many columns
      at most, where ``y >= 1.5 x`` (readout oversampled twice); else ``(y, x)``.
    """
    n_slices, _, height, width = file["kspace"].shape
    padding = (0, width)
    if "mask" not in file:
        columns = np.flatnonzero(occupied_columns(file["kspace"][n_slices // 2]))
        padding = (int(columns[0]), int(columns[-1]) + 1) if columns.size else padding
    if "reconstruction_rss" in file:
        size = file["reconstruction_rss"].shape[-2:]
    elif height >= _OVERSAMPLED * width:
        size = (height // 2, min(width, height // 2))
    else:
        size = (height, width)
    warnings.warn(
        f"{name} has no ismrmrd_header: derived from its k-space {(height, width)}: images are "
        f"{size[0]} x {size[1]}, columns {padding[0]} to {padding[1]} acquired",
        stacklevel=2,
    )
    return {
        "padding_left": padding[0],
        "padding_right": padding[1],
        "encoding_size": (height, width, 1),
        "recon_size": (size[0], size[1], 1),
        **file.attrs,
    }
