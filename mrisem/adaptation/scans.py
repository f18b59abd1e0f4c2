"""Clean slices of a folder of scans or images, by subject."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from mrisem.adaptation.pool import CONTRASTS, N_BRAIN, Pool
from mrisem.data.anatomies import FastMRIMixed
from mrisem.data.auxiliary import AuxiliarySettings, AuxiliarySlices, choose_subjects
from mrisem.data.image_volumes import image_volumes
from mrisem.data.images import images_of_root
from mrisem.data.volumes import VolumeInfo
from mrisem.errors import InputError
from mrisem.physics.masks import GaussianMask, stable_seed
from mrisem.progress import track

SIZE = 192  # pixels along the edge of slices of images, where nothing else is said
_SAME = {"AXT1PRE": "AXT1", "AXT1POST": "AXT1"}  # acquisition -> one of the same contrast


def find_slices(
    root: Path,
    acquisition: str | None,
    settings: AuxiliarySettings,
    on_error: str,
    folders: dict[str, Path],
) -> AuxiliarySlices:
    """Find the slices of a data set's ``multicoil_train``, or of DICOM series and NIfTI files.

    Subjects of a data set that are in another split, too, are left out.

    Args:
        root: folder.
        acquisition: acquisition of the scans (None: all), or the one that images are taken for.
        settings: subjects and slices, and how negatives are made, by which banks are judged.
        on_error: ``raise`` at a bad file, or ``skip`` it.
        folders: caches of `FastMRI`: ``index_folder``, ``conversion_folder``.

    Raises:
        InputError: when there are none, or their contrast is not known.
    """
    if acquisition is not None and _SAME.get(acquisition, acquisition) not in CONTRASTS:
        raise InputError(
            f"acquisition must be one of {', '.join((*CONTRASTS, *_SAME))}, got {acquisition!r}; "
            "adapt to other images with pairs=FILE"
        )
    if images := images_of_root(root, on_error):
        if acquisition is None:
            raise InputError(
                f"images do not name their contrast, got them in {root}; set acquisition=AXT2 or "
                f"another of {', '.join(CONTRASTS)}"
            )
        chosen = choose_subjects(images, set(), settings)
        volumes: Sequence[VolumeInfo] = image_volumes(
            chosen, acquisition, settings.cut(SIZE), on_error
        )
        return AuxiliarySlices(volumes, settings, None, "mixed", on_error)
    options: dict[str, Any] = {"on_error": on_error, "auxiliary": settings, **folders}
    data = FastMRIMixed(root, GaussianMask(4), **options)  # the mask is of what is reconstructed
    return data.auxiliary_slices(acquisition or CONTRASTS[0], "same" if acquisition else "mixed")


def hold_out(
    slices: AuxiliarySlices, share: float, seed: int
) -> tuple[AuxiliarySlices, AuxiliarySlices]:
    """Split slices by subject: those to adapt to, and those held out."""
    held = held_out({volume.subject for volume in slices.volumes}, share, seed)
    sides = [[v for v in slices.volumes if (v.subject in held) == side] for side in (False, True)]
    adapted, unseen = (slices.of(side, slices.settings) for side in sides)
    return adapted, unseen


def held_out(subjects: set[str], share: float, seed: int) -> set[str]:
    """Choose the subjects that are held out; the choice depends on names and seed alone.

    Raises:
        InputError: when there is a single subject.
    """
    if len(subjects) < 2:
        raise InputError(
            f"measures are taken on held-out subjects, got {len(subjects)} subjects in all; give "
            "two or more (pairs name theirs in the column subject)"
        )
    n = min(len(subjects) - 1, max(1, round(share * len(subjects))))
    return set(sorted(subjects, key=lambda s: (stable_seed("held out", s, seed), s))[:n])


def make_pool(slices: AuxiliarySlices) -> Pool:
    """Read clean slices, padded to squares, by their size."""
    by_size: dict[int, list[tuple[Tensor, int]]] = defaultdict(list)
    for image, _, info in track(slices, "clean slices", "slices"):
        by_size[max(image.shape)].append(
            (_square(image / image.max()).half(), code_of(info.acquisition))
        )
    return {
        size: (torch.stack([i for i, _ in rows]), torch.tensor([code for _, code in rows]))
        for size, rows in sorted(by_size.items())
    }


def code_of(acquisition: str) -> int:
    """Index of an acquisition in `CONTRASTS`."""
    return CONTRASTS.index(_SAME.get(acquisition, acquisition))


def anatomy_of(acquisition: str) -> str:
    """Brain or knee."""
    return "brain" if code_of(acquisition) < N_BRAIN else "knee"


def _square(image: Tensor) -> Tensor:
    """Pad with zeros around the centre."""
    height, width = image.shape
    side = max(height, width)
    top, left = side // 2 - height // 2, side // 2 - width // 2
    return pad(image, (left, side - width - left, top, side - height - top))
