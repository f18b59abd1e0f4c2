"""Images of other subjects for the prior's bank: fully sampled, and the same images aliased."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from mrisem.data.batches import Readout, Row, as_batch, magnitude, undersample
from mrisem.data.cuts import SLICE_STEP, Cut, Plane
from mrisem.data.image_volumes import ImageVolume
from mrisem.data.slices import (
    EmptySliceError,
    VolumeSlice,
    acquired_columns,
    central_slices,
    read_slice,
)
from mrisem.data.volumes import VolumeInfo
from mrisem.errors import InputError
from mrisem.physics.draws import draw_columns
from mrisem.physics.fourier import center_crop
from mrisem.physics.masks import GaussianMask, stable_seed
from mrisem.types import Batch, Reconstruction, SliceInfo


class Reconstructor(Protocol):
    """Trained network without a prior, whose reconstructions are hard negatives."""

    fingerprint: str  # hash of the network's weights

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch."""


@dataclass(frozen=True)
class AuxiliarySettings:
    """Choice of the images in the prior's bank.

    Args:
        n_subjects: number of auxiliary subjects (Feng et al., arXiv:2511.19641, section on
            semantic embeddings: 20 knee, 50 brain).
        root: data set with the subjects in ``multicoil_train``, or folder of images (NIfTI files,
            DICOM series); None: the data set that is reconstructed.
        acquisition: acquisition of the auxiliary scans, and of images, which name none; None: as
            the prior's contrast says.
        negatives: kind of the negatives: ``zero_filled`` images (as in the paper),
            ``reconstruction`` by the network, or ``both`` (docs/method.md).
        accelerations: accelerations of the negatives, drawn for each slice (same source: 3 to 8).
        calibration_lines: number of calibration lines of the negatives' masks, at most half of the
            sampled lines of a narrow matrix.
        max_slices: number of central slices of each file; None: all.
        seed: seed of the choice of subjects and of the negatives.
        plane: orientation of the slices of images; None: see `mrisem.data.cuts.choose_plane`.
        slice_step: distance of the slices of an image, mm; None: 5.
        size: pixels along the edge of slices of images; None: that of the reconstructed scans.
    """

    n_subjects: Annotated[int, Ge(1)] = 20
    root: str | None = None
    acquisition: str | None = None
    negatives: Literal["zero_filled", "reconstruction", "both"] = "zero_filled"
    accelerations: Sequence[int] = (3, 4, 5, 6, 7, 8)
    calibration_lines: int = 24
    max_slices: int | None = None
    seed: int = 0
    plane: Plane | None = None
    slice_step: Annotated[float, Gt(0)] | None = None
    size: Annotated[int, Ge(1)] | None = None

    def cut(self, size: int) -> Cut:
        """Cut of images into slices for scans whose targets have ``size`` rows."""
        return Cut(self.size or size, self.plane, self.slice_step or SLICE_STEP)


class HasSubject(Protocol):
    """Volume or image of one subject."""

    @property
    def subject(self) -> str:
        """Name of the subject."""


T = TypeVar("T", bound=HasSubject)


def choose_subjects(
    candidates: Sequence[T], excluded: set[str], settings: AuxiliarySettings
) -> list[T]:
    """Return the volumes of the first ``n_subjects`` subjects in a seeded order.

    Args:
        candidates: volumes or images.
        excluded: subjects that are reconstructed or in another split.
        settings: number of subjects, and seed.

    Raises:
        InputError: when all subjects are excluded.
    """
    subjects = {volume.subject for volume in candidates}
    # The order depends on name and seed only, so that added files do not reshuffle subjects.
    free = sorted(subjects - excluded, key=lambda s: (stable_seed(s, settings.seed), s))
    if not free:
        raise InputError(
            "the auxiliary set must hold subjects that are neither reconstructed nor in another "
            f"split, got none among {sorted(subjects)[:5]} ({len(subjects)} subjects in "
            "multicoil_train or among the images); set auxiliary.root to other subjects"
        )
    chosen = set(free[: settings.n_subjects])
    return [volume for volume in candidates if volume.subject in chosen]


class AuxiliarySlices:
    """Iterable over the auxiliary slices: ``(positive, negative, info)``.

    * positive ``(Y, X)`` float32: root-sum-of-squares image of the fully sampled slice (the file's
      target, if it has one), in units of the file;
    * negative ``(Y, X)`` float32: the same slice zero-filled, with a Gaussian mask at an
      acceleration drawn from ``settings.accelerations``, or reconstructed from those samples;
      ``negatives=both`` gives the slice twice, once with each negative;
    * info: `SliceInfo`, with the acceleration of the negative's mask.

    Source: Feng et al., arXiv:2511.19641, section on semantic embeddings.

    A slice that holds only zeros is left out with a warning; with ``on_error=skip`` so is a slice
    that is bad in another way. The length counts it until it has been read.

    Args:
        volumes: fully sampled files, or images.
        settings: choice of slices and negatives.
        reconstructor: network that makes reconstructions as negatives; None: no such negatives.
        contrast: choice of the acquisition, for descriptions.
        on_error: ``raise`` at a bad slice, or ``skip`` it.
        readout: image rows that the reconstructor is given, see `as_batch`.
    """

    def __init__(
        self,
        volumes: Sequence[VolumeInfo],
        settings: AuxiliarySettings,
        reconstructor: Reconstructor | None = None,
        contrast: str = "same",
        on_error: str = "raise",
        readout: Readout = "all",
    ):
        if not volumes:
            raise InputError("the auxiliary set must hold at least one file, got none")
        if settings.negatives != "zero_filled" and reconstructor is None:
            raise InputError(
                "auxiliary.negatives other than zero_filled need a trained network, got "
                f"{settings.negatives} without one; set a network as model and model.checkpoint, "
                "or auxiliary.negatives=zero_filled"
            )
        self.volumes = list(volumes)
        self.settings = settings
        self.reconstructor = reconstructor
        self.contrast = contrast
        self.on_error, self.readout = on_error, readout
        self._slices = central_slices(self.volumes, settings.max_slices)
        self._bad: set[tuple[str, int]] = set()  # (file, slice) left out so far

    def of(self, volumes: Sequence[VolumeInfo], settings: AuxiliarySettings) -> AuxiliarySlices:
        """Return slices of other volumes or with other settings, made in the same way."""
        made = self.reconstructor, self.contrast, self.on_error, self.readout
        return AuxiliarySlices(volumes, settings, *made)

    def __len__(self) -> int:
        return len(self._good) * (2 if self.settings.negatives == "both" else 1)

    @property
    def _good(self) -> list[VolumeSlice]:
        """Slices that have not turned out to be bad."""
        return [part for part in self._slices if (part.volume.file, part.slice) not in self._bad]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, SliceInfo]]:
        for part in self._good:
            try:
                pairs = list(self._pairs(part))
            except InputError as error:
                message = str(error)
                if part.volume.file not in message:
                    message = f"{part.volume.path}, slice {part.slice}: {message}"
                if self.on_error == "raise" and not isinstance(error, EmptySliceError):
                    raise InputError(message) from error
                self._bad.add((part.volume.file, part.slice))
                warnings.warn(f"left out of the auxiliary set: {message}", stacklevel=2)
                continue
            yield from pairs
        if not self._good:
            raise InputError(
                f"the auxiliary set must hold a good slice, got {len(self._slices)} bad ones in "
                f"{self.volumes[0].path.parent}; set auxiliary.root to other data"
            )

    def _pairs(self, part: VolumeSlice) -> Iterator[tuple[Tensor, Tensor, SliceInfo]]:
        """Yield positive, negative and description of a slice, once for each kind of negative."""
        volume = part.volume
        kspace, stored, target = read_slice(volume, part.slice)
        if stored is not None and not np.all(stored):
            raise InputError(
                "auxiliary scans must be fully sampled, got an undersampling mask in "
                f"{volume.path}; set auxiliary.root to fully sampled data"
            )
        if target is None:
            target = center_crop(magnitude(kspace), volume.crop)
        if not bool(target.any()):
            raise InputError(
                f"a target must hold signal, got only zeros in {volume.path}, slice {part.slice}; "
                "leave the file out"
            )
        columns, acceleration = self._mask(part, acquired_columns(volume, kspace, stored))
        info = part.info(acceleration)
        if self.settings.negatives != "reconstruction":
            yield target, center_crop(magnitude(kspace * columns), volume.crop), info
        if self.reconstructor is not None and self.settings.negatives != "zero_filled":
            row = Row(*undersample(kspace, columns), columns, info)
            batch = as_batch([row], volume.crop, readout=self.readout)
            with torch.no_grad():
                image = self.reconstructor(batch).image.abs()[0]
            yield target, batch.scale * center_crop(image, volume.crop), info

    def _mask(self, part: VolumeSlice, padding: tuple[int, int]) -> tuple[Tensor, float]:
        """Draw the negative's sampled columns ``(x,)`` bool; return them and their acceleration."""
        settings, width = self.settings, padding[1] - padding[0]
        # seeded by file and slice: neither the order nor a choice of slices changes the draws
        seed = stable_seed("negative", part.volume.file, part.slice, settings.seed)
        acceleration = np.random.default_rng(seed).choice(list(settings.accelerations))
        # narrow matrices: half of the lines that the acceleration leaves stay random
        lines = min(settings.calibration_lines, round(width / acceleration) // 2)
        mask = GaussianMask(float(acceleration), lines)
        columns = draw_columns(mask, part.volume.shape[3], padding, seed)
        return columns, width / int(columns.sum())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all on which the slices depend, part of the key of a cached bank.

        Hashing all k-space would read a whole data set (tens of gigabytes) before each run. Each
        file therefore counts by its name, shape, attributes and the k-space of its middle slice,
        which changes whenever a file is simulated or acquired anew. Times of modification do not
        count, so that a copied data set keeps its bank.
        """
        settings = self.settings
        # the text of this list is hashed: a change of it makes every cached bank anew
        recipe: list[Any] = [
            [int(r) for r in settings.accelerations],
            settings.calibration_lines,
            settings.max_slices,
            settings.seed,
        ]
        if self.reconstructor is not None:
            recipe += [settings.negatives, self.reconstructor.fingerprint, self.readout]
        digest = hashlib.sha256(repr(tuple(recipe)).encode())
        with self.volumes[0].index:  # all volumes share the index of their data set
            for volume in self.volumes:
                digest.update(self._volume_facts(volume).encode())
        return digest.hexdigest()

    def _volume_facts(self, volume: VolumeInfo) -> str:
        """Return the facts of one file that count in the `fingerprint`, as text."""
        facts: list[object] = [volume.file, volume.acquisition, volume.kspace_center]
        facts += [volume.shape, volume.padding, volume.crop]
        try:
            facts.append(volume.middle)
        except InputError:
            if self.on_error == "raise":
                raise
            # with skip, its slices will be left out when they are read
        return repr(facts)

    def describe(self) -> dict[str, Any]:
        """Return facts for the JSON file beside a bank, without names of patients or folders."""
        return {
            "acquisitions": sorted({_contrast(volume) for volume in self.volumes}),
            "subjects": sorted({_hashed(volume.subject) for volume in self.volumes}),
            "files": [_hashed(volume.file) for volume in self.volumes],
            "n_slices": len(self),
            "negatives": self.settings.negatives,
            "accelerations": [int(r) for r in self.settings.accelerations],
            "contrast": self.contrast,
            "seed": self.settings.seed,
            "fingerprint": self.fingerprint,
        }


def _contrast(volume: VolumeInfo) -> str:
    """Return the acquisition of a scan, or the one that an image is taken for."""
    prefix = "images, taken as " if isinstance(volume, ImageVolume) else ""
    return f"{prefix}{volume.acquisition}"


def _hashed(name: str) -> str:
    """Return a substitute for the name of a patient or file: 12 digits of its SHA-256."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]
