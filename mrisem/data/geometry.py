"""Position of the voxels of a scan's images in the patient, as an affine matrix in mm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from mrisem.errors import InputError

Affine = tuple[tuple[float, ...], ...]
"""4 x 4 matrix that maps (column X, row Y, slice) to mm to the right, front and head (RAS+)."""


def read_affine(file: h5py.File) -> Affine | None:
    """Return the attribute ``affine`` of a data or reconstruction file; None: it has none.

    Raises:
        InputError: when the attribute is no such matrix.
    """
    if "affine" not in file.attrs:
        return None
    values = np.asarray(file.attrs["affine"])
    is_matrix = (
        values.shape == (4, 4) and values.dtype.kind in "iuf" and bool(np.isfinite(values).all())
    )
    # a determinant of 0 would put all voxels into one plane
    if (
        not is_matrix
        or abs(np.linalg.det(values[:3, :3])) < 1e-9
        or (values[3] != (0, 0, 0, 1)).any()
    ):
        raise InputError(
            f"attribute affine of {file.filename} must be 4 x 4 numbers that map voxels to mm, the "
            f"last row 0 0 0 1, got {' '.join(str(values).split()):.120}; correct or remove it"
        )
    return as_affine(values.tolist())


def affine_of_voxels(voxel_mm: Sequence[float] | None) -> Affine | None:
    """Return an affine for voxels whose position is not stated; None: nor is their size.

    Columns run to the patient's left, rows to the back, slices to the head, as in an axial slice in
    radiological orientation. The first voxel lies at the origin.

    Args:
        voxel_mm: distances of columns, of rows and of slices, mm.
    """
    if voxel_mm is None:
        return None
    column, row, across = voxel_mm
    # DICOM and ISMRMRD count to the left and back, RAS+ to the right and front
    return as_affine(np.diag([-column, -row, across, 1.0]).tolist())


def as_affine(rows: Any) -> Affine | None:
    """Return the rows of a matrix as tuples of floats; None stays None."""
    return None if rows is None else tuple(tuple(float(value) for value in row) for row in rows)
