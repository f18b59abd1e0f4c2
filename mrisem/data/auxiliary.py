"""Images of other subjects for the prior's bank: fully sampled ones and the same ones aliased."""

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
    SliceOf,
    acquired_columns,
    central_slices,
    read_slice,
)
from mrisem.data.volumes import VolumeInfo
from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop
from mrisem.physics.masks import GaussianMask, draw_columns, stable_seed
from mrisem.types import Batch, Reconstruction, SliceInfo


class Reconstructor(Protocol):
    """What makes hard negatives: a network as it was trained, without a prior."""

    fingerprint: str  # hash of its weights

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch."""


@dataclass(frozen=True)
class AuxiliarySettings:
    """What the bank is made of.

    Args:
        n_subjects: number of auxiliary subjects (method, Feng et al., arXiv:2511.19641, section on
            semantic embeddings: 20 knee, 50 brain).
        root: data set whose ``multicoil_train`` they come from, or a folder of images (NIfTI files,
            DICOM series); None: the one reconstructed.
        acquisition: take this one whatever is reconstructed; None: as the prior's contrast says.
            Images, which name none, count as it.
        negatives: ``zero_filled`` images (the method's), the network's own ``reconstruction`` of
            them, or ``both`` (docs/method.md).
        accelerations: Accelerations of the negatives, drawn for each slice (same source: 3 to 8).
        calibration_lines: Calibration lines of the negatives' masks, at most half of the lines of
            narrow matrices.
        max_slices: central slices of each file; None: all.
        seed: decides on subjects and negatives.
        plane: orientation of the slices of images; None: see `mrisem.data.cuts.choose_plane`.
        slice_step: mm from one slice of an image to the next; None: 5.
        size: pixels along the edge of slices of images; None: as the reconstructed scans have.
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
        """How slices of images are made for scans with targets of that size."""
        return Cut(self.size or size, self.plane, self.slice_step or SLICE_STEP)


class OfASubject(Protocol):
    """A volume or image."""

    @property
    def subject(self) -> str:
        """The subject."""


T = TypeVar("T", bound=OfASubject)


def choose_subjects(
    candidates: Sequence[T], excluded: set[str], settings: AuxiliarySettings
) -> list[T]:
    """Take the volumes of the first ``n_subjects`` subjects in a seeded order.

    The order depends on a subject's name and the seed only: adding files does not reshuffle.
    Subjects that are ``excluded`` play another part; when all are, an InputError is raised.
    """
    subjects = {volume.subject for volume in candidates}
    free = sorted(subjects - excluded, key=lambda s: (stable_seed(s, settings.seed), s))
    if not free:
        raise InputError(
            "the auxiliary set must not be empty: of the subjects "
            f"{sorted(subjects)[:5]} ({len(subjects)}) in multicoil_train or among the images, all "
            "are reconstructed or in another split as well; set auxiliary.root to other subjects"
        )
    chosen = set(free[: settings.n_subjects])
    return [volume for volume in candidates if volume.subject in chosen]


class AuxiliarySlices:
    """The auxiliary slices, one after the other: ``(positive, negative, info)``.

    * positive ``(Y, X)`` float32: root-sum-of-squares of the fully sampled slice (the file's
      target, where there is one), in units of the file;
    * negative ``(Y, X)`` float32: the same slice zero-filled at an acceleration drawn from
      ``settings.accelerations`` with a Gaussian mask, or its reconstruction from those samples;
      with ``negatives=both`` the slice comes twice, once with either;
    * info: `SliceInfo`, with the acceleration that the negative reaches.

    Draws are seeded by file, slice and ``settings.seed``: neither order nor subset changes them.
    Source: method, Feng et al., arXiv:2511.19641, section on semantic embeddings.

    A slice that holds only zeros, and with ``on_error=skip`` one that is bad in another way, is
    left out with a warning. The length counts it until it has been read.

    Args:
        volumes: fully sampled files, or images.
        settings: how the negatives are made.
        reconstructor: makes reconstructions, where they are asked for.
        contrast: how the acquisition was chosen, for descriptions.
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
                f"auxiliary.negatives={settings.negatives} needs a network with model.checkpoint "
                "that makes them; set both, or auxiliary.negatives=zero_filled"
            )
        self.volumes = list(volumes)
        self.settings = settings
        self.reconstructor = reconstructor
        self.contrast = contrast
        self.on_error, self.readout = on_error, readout
        self._slices = central_slices(self.volumes, settings.max_slices)
        self._bad: set[tuple[str, int]] = set()

    def __len__(self) -> int:
        return len(self._good) * (2 if self.settings.negatives == "both" else 1)

    @property
    def _good(self) -> list[SliceOf]:
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
                f"the auxiliary set must hold a good slice, all {len(self._slices)} of "
                f"{self.volumes[0].path.parent} are bad; set auxiliary.root to other data"
            )

    def _pairs(self, part: SliceOf) -> Iterator[tuple[Tensor, Tensor, SliceInfo]]:
        """Positive, negative and description of one slice, once for each kind of negative."""
        volume = part.volume
        kspace, stored, target = read_slice(volume, part.slice)
        if stored is not None and not np.all(stored):
            raise InputError(
                f"auxiliary scans must be fully sampled, {volume.path} carries an undersampling "
                "mask; set auxiliary.root to fully sampled data"
            )
        if target is None:
            target = center_crop(magnitude(kspace), volume.crop)
        if not bool(target.any()):
            raise InputError(
                f"a target must not be all zero, got that in {volume.path}, slice {part.slice}; "
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

    def _mask(self, part: SliceOf, padding: tuple[int, int]) -> tuple[Tensor, float]:
        """Draw the negative's acceleration and sampled columns ``(x,)``."""
        settings, width = self.settings, padding[1] - padding[0]
        seed = stable_seed("negative", part.volume.file, part.slice, settings.seed)
        acceleration = np.random.default_rng(seed).choice(list(settings.accelerations))
        lines = min(settings.calibration_lines, round(width / acceleration) // 2)
        mask = GaussianMask(float(acceleration), lines)
        columns = draw_columns(mask, part.volume.shape[3], padding, seed)
        return columns, width / int(columns.sum())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the slices depend on, the key of a cached bank.

        Hashing all k-space would read a whole data set (tens of gigabytes) before each run. Each
        file therefore counts by its name, shape, attributes and the k-space of its middle slice,
        which changes whenever a file is simulated or acquired anew. Times of modification do not
        count, so that a copied data set keeps its bank.
        """
        settings = self.settings
        recipe: list[Any] = [
            [int(r) for r in settings.accelerations],
            settings.calibration_lines,
            settings.max_slices,
            settings.seed,
        ]
        if self.reconstructor is not None:
            recipe += [settings.negatives, self.reconstructor.fingerprint, self.readout]
        digest = hashlib.sha256(repr(tuple(recipe)).encode())
        with self.volumes[0].index:  # all are of one data set
            for volume in self.volumes:
                digest.update(self._volume_facts(volume).encode())
        return digest.hexdigest()

    def _volume_facts(self, volume: VolumeInfo) -> str:
        """What the `fingerprint` counts of one file."""
        facts: list[object] = [volume.file, volume.acquisition, volume.kspace_center]
        facts += [volume.shape, volume.padding, volume.crop]
        try:
            facts.append(volume.middle)
        except InputError:
            if self.on_error == "raise":
                raise  # else its slices will be left out
        return repr(facts)

    def describe(self) -> dict[str, Any]:
        """Return what stands beside a bank in its JSON file: no names of patients or folders."""
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
    """Acquisition of a scan; of an image, which names none, what it is taken for."""
    taken = "images, taken as " if isinstance(volume, ImageVolume) else ""
    return f"{taken}{volume.acquisition}"


def _hashed(name: str) -> str:
    """Stand-in for the name of a patient or file: 12 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]
