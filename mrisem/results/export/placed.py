"""Reconstructed slices of a scan with their geometry, ready for export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mrisem.data.geometry import affine_of_voxels
from mrisem.errors import InputError
from mrisem.results.reading import Volume
from mrisem.results.record import Record

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
"""Signs from NIfTI's axes (right, front, head) to DICOM's and ISMRMRD's (left, back, head)."""


@dataclass(frozen=True)
class PlacedImages:
    """Reconstructed slices of one scan.

    Args:
        images: ``(slice, y, x)`` float32 magnitudes, finite.
        numbers: indices of the slices in the input, ascending.
        affine: ``(4, 4)`` float64 that maps (column, row, index in the input) to mm (RAS+).
        placed: whether position and orientation are known; else the affine only states sizes.
        acquisition: fastMRI's name of the sequence.
        method: name of the reconstruction method.
        description: method, sampling and kind of data, in one line without names of files.
    """

    images: np.ndarray
    numbers: list[int]
    affine: np.ndarray
    placed: bool
    acquisition: str
    method: str
    description: str

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Distances of columns, of rows, and of slices, mm."""
        column, row, across = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return column, row, across

    @property
    def directions(self) -> np.ndarray:
        """``(3, 3)`` float64: unit vectors (LPS) in which columns, rows and slices follow."""
        return (self.affine[:3, :3] / np.array(self.voxel_mm)).T * RAS_TO_LPS

    def point(self, column: float, row: float, number: float) -> np.ndarray:
        """Return the position of a voxel, mm to the left, back and head (LPS)."""
        ras = self.affine @ np.array([column, row, number, 1.0])
        return ras[:3] * RAS_TO_LPS


def place(volume: Volume, record: Record, voxel_mm: Sequence[float] | None) -> PlacedImages:
    """Return the slices of a reconstructed file with their geometry.

    Args:
        volume: the file.
        record: record of its run.
        voxel_mm: distances of columns, of rows, and of slices, mm; None: as the file states.

    Raises:
        InputError: when values are not finite, or the size of voxels is not known.
    """
    affine = volume.affine if voxel_mm is None else _scaled(volume.affine, voxel_mm)
    if affine is None:
        raise InputError(
            f"the size of voxels must be known, got none in {volume.path} (its input had neither "
            "affine nor field of view, or an earlier version made it); set voxel_mm=[X,Y,SLICE]"
        )
    images = volume.images.numpy()
    if not np.isfinite(images).all():
        raise InputError(
            f"images must be finite, got NaN or infinity in {volume.path}; reconstruct it again"
        )
    order = np.argsort(volume.slices)
    method = volume.record.method if volume.record else record.method
    # of "simulated from images: ..." the part before the details; it must not look measured
    simulated = volume.simulation.split(":")[0] if ":" in volume.simulation else "simulated data"
    facts = [method, record.sampling, simulated if volume.simulation else "", "not for diagnosis"]
    return PlacedImages(
        images=images[order],
        numbers=[volume.slices[index] for index in order],
        affine=np.array(affine),
        placed=volume.placed,
        acquisition=volume.acquisition,
        method=method,
        description=f"mrisem {record.version}: {'; '.join(filter(None, facts))}",
    )


def _scaled(affine: Sequence[Sequence[float]] | None, voxel_mm: Sequence[float]) -> np.ndarray:
    """Return the affine with other distances of voxels; directions and first voxel stay."""
    scaled = np.array(affine_of_voxels(voxel_mm) if affine is None else affine)
    scaled[:3, :3] *= np.array(voxel_mm) / np.linalg.norm(scaled[:3, :3], axis=0)
    return scaled
