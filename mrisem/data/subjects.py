"""Division of a data set's subjects: reconstruction, bank, training and validation."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from mrisem.data.auxiliary import AuxiliarySettings, choose_subjects
from mrisem.data.folders import data_files, select_acquisition, split_folder
from mrisem.data.image_volumes import ImageVolume, image_volumes
from mrisem.data.images import Image
from mrisem.data.volumes import UNNAMED, VolumeInfo
from mrisem.errors import InputError
from mrisem.physics.masks import stable_seed
from mrisem.types import FailedScan


class Anatomy(Protocol):
    """Contrasts of a kind of data set.

    Attributes:
        anatomy: name of the anatomy.
        acquisitions: fastMRI's names of its sequences.
        cross: acquisition -> another contrast of the same anatomy.
    """

    anatomy: str
    acquisitions: tuple[str, ...]
    cross: Mapping[str, str]


@dataclass(frozen=True)
class Subjects:
    """Division of the subjects into parts that share no subject.

    Other options as for `mrisem.data.datamodules.FastMRI`.

    Args:
        kind: anatomy and acquisitions of the data set.
        find: function (root, split, on_error) -> volumes of the split's folder, and bad files.
        images: function (root, on_error) -> NIfTI files and DICOM series of a folder; empty for
            the folder of a data set.
        given_volumes: volumes that are reconstructed instead of those in the split's folder; None:
            those of the folder.
    """

    kind: Anatomy
    find: Callable[[Path, str, str], tuple[list[VolumeInfo], list[FailedScan]]]
    images: Callable[[Path, str], Sequence[Image]]
    root: Path
    split: str
    acquisition: str | None
    max_volumes: int | None
    seed: int
    on_error: str
    auxiliary: AuxiliarySettings
    train_subjects: Literal["remaining", "auxiliary"]
    validation_subjects: int
    given_volumes: Sequence[VolumeInfo] | None = None

    def failed(self, split: str) -> list[FailedScan]:
        """Files of a split that could not be inspected (``on_error=skip``)."""
        return self._in_split(split)[1]

    def _in_split(self, split: str) -> tuple[Sequence[VolumeInfo], list[FailedScan]]:
        """Return all volumes of a split, and its bad files."""
        if self.given_volumes is not None and split == self.split:
            return self.given_volumes, []
        return self.find(self.root, split, self.on_error)

    def _has(self, split: str) -> bool:
        """Return whether the split has volumes or a folder."""
        is_given = self.given_volumes is not None and split == self.split
        return is_given or split_folder(self.root, split).is_dir()

    def volumes(self, split: str) -> list[VolumeInfo]:
        """Volumes of a split that have the acquisition, at most ``max_volumes``."""
        volumes, failed = self._in_split(split)
        if not volumes and failed:  # each bad file is reported by itself
            return []
        chosen = select_acquisition(
            volumes, self.acquisition, self.kind.acquisitions, self.kind.anatomy
        )
        return chosen[: self.max_volumes]

    def _excluded(self, root: Path) -> set[str]:
        """Return the subjects that may neither be trained on nor enter the bank.

        Args:
            root: folder of the auxiliary set, whose splits count as well.
        """
        volumes = []
        if self._has(self.split):
            volumes += self.volumes(self.split)
        # All acquisitions count: another contrast of a reconstructed subject would leak, too.
        for folder in {root, self.root}:
            for split in {"val", "test", self.split} - {"train"}:
                # A training needs no other split. A file that cannot be read cannot leak.
                if data_files(split_folder(folder, split)):
                    volumes += self.find(folder, split, "skip")[0]
        return {volume.subject for volume in volumes}

    def bank_volumes(self, acquisition: str, contrast: str = "same") -> list[VolumeInfo]:
        """Volumes of the auxiliary set for scans of ``acquisition``."""
        root = Path(self.auxiliary.root or self.root)
        if images := self.images(root, self.on_error):
            return self._image_volumes(images, root, acquisition, contrast)
        for option in ("plane", "slice_step", "size"):
            if (value := getattr(self.auxiliary, option)) is not None:
                raise InputError(
                    f"auxiliary.{option} cuts slices of images, got {value} for {root}, which "
                    "holds scans; leave it out, or set auxiliary.root to a folder of images"
                )
        wanted = self._bank_acquisitions(acquisition, contrast)
        volumes, failed = self.find(root, "train", self.on_error)
        for scan in failed:
            warnings.warn(f"left out of the auxiliary set: {scan.message}", stacklevel=2)
        candidates = [volume for volume in volumes if volume.acquisition in wanted]
        if not candidates:
            present = sorted({volume.acquisition for volume in volumes})
            raise InputError(
                f"the auxiliary set must hold {' or '.join(wanted)} scans, got {present} in "
                f"{split_folder(root, 'train')}; set auxiliary.acquisition or auxiliary.root"
            )
        return choose_subjects(candidates, self._excluded(root), self.auxiliary)

    def _image_volumes(
        self, images: Sequence[Image], root: Path, acquisition: str, contrast: str
    ) -> list[VolumeInfo]:
        """Return slices of images as the bank for scans of ``acquisition``."""
        # A scan simulated from an image has the image's subject (`Image.subject`). So no bank holds
        # the image of a scan that is reconstructed.
        chosen = choose_subjects(images, self._excluded(root), self.auxiliary)
        # Slices get the size of the scans; a training may have no split to reconstruct.
        split = self.split if self._has(self.split) else "train"
        size = self.volumes(split)[0].crop[0]
        # images name no acquisition: they count as the one that the bank needs
        wanted = self._bank_acquisitions(acquisition, contrast)
        label = wanted[0] if len(wanted) == 1 else acquisition
        return [*image_volumes(chosen, label, self.auxiliary.cut(size), self.on_error)]

    def _bank_acquisitions(self, acquisition: str, contrast: str) -> tuple[str, ...]:
        """Return the acquisitions of the auxiliary images for scans of ``acquisition``."""
        if self.auxiliary.acquisition is not None:
            return (self.auxiliary.acquisition,)
        choices = {
            "same": (acquisition,),
            "cross": (self.kind.cross.get(acquisition, UNNAMED),),
            "mixed": self.kind.acquisitions,
        }
        if contrast not in choices:
            raise InputError(
                f"prior.contrast must be one of {[*choices]}, got {contrast!r}; set one of them"
            )
        if UNNAMED in choices[contrast]:
            raise InputError(
                "scans must name their acquisition to choose auxiliary images, got "
                f"{acquisition!r}; set auxiliary.acquisition to one of "
                f"{list(self.kind.acquisitions)}"
            )
        return choices[contrast]

    def training(self) -> tuple[list[VolumeInfo], list[VolumeInfo]]:
        """Volumes to train on, and volumes to validate on; they share no subject."""
        candidates = self.volumes("train")
        acquisitions = sorted({volume.acquisition for volume in candidates})
        auxiliary = {v.path: v for a in acquisitions for v in self.bank_volumes(a)}
        excluded = self._excluded(self.root) | {v.subject for v in auxiliary.values()}
        free = [volume for volume in candidates if volume.subject not in excluded]
        # The order depends on name and seed only, so that added files do not reshuffle subjects.
        subjects = sorted(
            {v.subject for v in free}, key=lambda s: (stable_seed("validation", s, self.seed), s)
        )
        held_out = set(subjects[: self.validation_subjects])
        on_auxiliary = self.train_subjects == "auxiliary"
        if on_auxiliary and any(isinstance(v, ImageVolume) for v in auxiliary.values()):
            raise InputError(
                "data.train_subjects=auxiliary trains on the bank's scans, got a bank of images "
                f"({self.auxiliary.root}); set data.train_subjects=remaining"
            )
        if len(subjects) < self.validation_subjects + (not on_auxiliary):
            raise InputError(
                f"multicoil_train must hold {self.validation_subjects} validation subjects"
                f"{'' if on_auxiliary else ' and at least one to train on'} beside "
                f"{len(auxiliary)} auxiliary files, got {len(subjects)}; lower "
                "auxiliary.n_subjects or data.validation_subjects, or set "
                "data.train_subjects=auxiliary"
            )
        training = [volume for volume in free if volume.subject not in held_out]
        validation = [volume for volume in free if volume.subject in held_out]
        return list(auxiliary.values()) if on_auxiliary else training, validation
