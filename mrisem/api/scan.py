"""Scans: which slices of which files are reconstructed, and how they are undersampled."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mrisem.api.masks import Mask
from mrisem.api.options import given
from mrisem.data.anatomies import FastMRIKnee, FastMRIMixed
from mrisem.data.folders import data_files, select_acquisition, warn_without_subject
from mrisem.data.slices import central_slices
from mrisem.data.volumes import Center, VolumeInfo, inspect_volume
from mrisem.errors import InputError
from mrisem.results.targets import read_target

if TYPE_CHECKING:
    from mrisem.data.datamodules import FastMRI

_LAYOUT = ("multicoil_", "singlecoil_")


@dataclass(frozen=True)
class Scan:
    """Slices of one file, or of a folder of files, that are reconstructed together.

    Args:
        volumes: what is in each file.
        slices: name of the file and index in it of each slice, in the order of `Result.image`.
        mask: how the scan is undersampled; None: not yet.
    """

    volumes: tuple[VolumeInfo, ...]
    slices: tuple[tuple[str, int], ...]
    mask: Mask | None = None

    def undersample(self, mask: Mask) -> Scan:
        """Return the scan under a mask of `mrisem.masks`."""
        return replace(self, mask=mask)

    @property
    def acquisitions(self) -> list[str]:
        """FastMRI's names of the sequences."""
        return sorted({volume.acquisition for volume in self.volumes})

    @property
    def subjects(self) -> list[str]:
        """Subjects, which no bank of the scan holds."""
        return sorted({volume.subject for volume in self.volumes})

    @property
    def target(self) -> np.ndarray:
        """Target images ``(slice, y, x)`` float32.

        Raises:
            InputError: when a file has none.
        """
        images = []
        for volume in self.volumes:
            indices = self.indices(volume)
            images.append(read_target(volume.path, indices).images.numpy()[indices])
        return np.concatenate(images)

    def indices(self, volume: VolumeInfo) -> list[int]:
        """Return the indices of the slices of one file."""
        return [index for file, index in self.slices if file == volume.file]

    def words(self) -> list[str]:
        """Return data and mask as words of the command line.

        Raises:
            InputError: when the scan is not undersampled yet.
        """
        if self.mask is None:
            raise InputError(
                "a scan must be undersampled before it is reconstructed, got no mask; call "
                "scan.undersample(mrisem.masks.gaussian(4)), or masks.from_file() for its own"
            )
        knee = set(self.acquisitions) & set(FastMRIKnee.acquisitions)
        mixed = knee and set(self.acquisitions) - set(FastMRIKnee.acquisitions)
        root, split = self._place()
        center = self.volumes[0].kspace_center
        anatomy = "mixed" if mixed else "knee" if knee else "brain"
        data = given(data=anatomy, data__root=root, data__split=split, data__kspace_center=center)
        return data + self.mask.words()

    def give(self, data: FastMRI) -> None:
        """Let a DataModule reconstruct these slices."""
        data.take(self.volumes)
        every = {(v.file, index) for v in self.volumes for index in range(v.n_slices)}
        data.skip(every - set(self.slices))

    def _place(self) -> tuple[str, str]:
        """Data set and split that the files are in; a file that is in none is alone."""
        folder = self.volumes[0].path.resolve().parent
        if folder.name.startswith(_LAYOUT):
            return str(folder.parent), folder.name.partition("_")[2]
        return str(folder), "val"

    def __repr__(self) -> str:
        first = self.volumes[0]
        more = f" and {len(self.volumes) - 1} more files" if len(self.volumes) > 1 else ""
        mask = "not undersampled"
        if self.mask is not None:
            mask = f"{' '.join(self.mask.words())} seed={self.mask.seed}"
        return (
            f"Scan({first.file}{more}: {', '.join(self.acquisitions)}, {len(self.slices)} slices, "
            f"k-space (slice, coil, y, x) = {first.shape}, images {first.crop}; {mask})"
        )


def load(
    path: str | PathLike[str],
    *,
    slices: Iterable[int] | None = None,
    max_slices: int | None = None,
    acquisition: str | None = None,
    kspace_center: Center = "middle",
) -> Scan:
    """Open a scan; its k-space is read when it is reconstructed.

    Args:
        path: a data file, or a folder of files, whose slices follow each other by file name.
        slices: indices of the slices to reconstruct; None: all.
        max_slices: number of central slices of each file to reconstruct, instead of ``slices``.
        acquisition: fastMRI's name of the sequence, for files that name none.
        kspace_center: where the files have the zero frequency: ``middle``, or ``corner``, index 0.

    Raises:
        InputError: when there is no file, or one that cannot be read.
    """
    path = Path(path).expanduser()
    paths = data_files(path) if path.is_dir() else [path]
    if not paths:
        raise InputError(f"a folder of scans must hold data files, {path} holds none; name another")
    found = [inspect_volume(file, kspace_center) for file in paths]
    warn_without_subject([volume.file for volume in found if not volume.has_patient_id])
    known = FastMRIMixed.acquisitions
    volumes = tuple(select_acquisition(found, acquisition, known, "brain or knee"))
    if len({volume.crop for volume in volumes}) > 1:
        sizes = sorted({volume.crop for volume in volumes})
        raise InputError(
            f"files of one folder must have images of one size, got {sizes} in {path}; load the "
            "files one by one"
        )
    if slices is None:
        parts = central_slices(volumes, max_slices)
        return Scan(volumes, tuple((part.volume.file, part.slice) for part in parts))
    if max_slices is not None:
        raise InputError(f"slices and max_slices exclude each other, got {max_slices}; give one")
    return Scan(volumes, _chosen(volumes, slices))


def _chosen(volumes: Collection[VolumeInfo], slices: Iterable[int]) -> tuple[tuple[str, int], ...]:
    """Slices of these indices, of each file."""
    if isinstance(slices, int):
        raise InputError(
            f"slices must be indices such as [{slices}], got the number {slices}; for so many "
            f"central slices give max_slices={slices}"
        )
    indices = sorted(set(slices))
    last = min(volume.n_slices for volume in volumes) - 1
    if not indices or indices[0] < 0 or indices[-1] > last:
        raise InputError(f"slices must be indices from 0 to {last}, got {indices}; choose others")
    return tuple((volume.file, index) for volume in volumes for index in indices)


def undersample(scan: Scan, mask: Mask) -> Scan:
    """Return the scan under a mask of `mrisem.masks`, as ``scan.undersample(mask)`` does."""
    return scan.undersample(mask)
