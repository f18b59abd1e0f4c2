"""Collection of scores over volumes: takes slices in any order, returns rows of a table."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from mrisem.errors import InputError
from mrisem.metrics.fidelity import volume_scores
from mrisem.metrics.score import Score

SMALLEST_IMAGE = 16  # pixels: size of HaarPSI's coarsest wavelet

Row = dict[str, str | int | float | None]


class VolumeMetrics(Metric):
    """Scores of slices, with the maximum of their volume as data range, and fastMRI's of volumes.

    A volume consists of the slices that were given under one file name. If these are not all slices
    of the file, give the maximum of the whole target with them (``peaks``), so that the scores of a
    slice do not depend on the others. Slices are kept until `compute`; call `reset` after each file
    when a test set does not fit into memory. Nothing is gathered from other processes.

    Args:
        scores: column name -> score.
    """

    full_state_update = False
    reconstructions: list[Tensor]
    targets: list[Tensor]

    def __init__(self, scores: Mapping[str, Score]):
        super().__init__()
        self.scores = dict(scores)
        self.add_state("reconstructions", default=[], dist_reduce_fx=None)
        self.add_state("targets", default=[], dist_reduce_fx=None)
        self.keys: list[tuple[str, int]] = []
        self.peaks: dict[str, float] = {}

    def update(
        self,
        reconstruction: Tensor,
        target: Tensor,
        file: Sequence[str],
        slices: Sequence[int],
        peaks: Mapping[str, float] | None = None,
    ) -> None:
        """Add slices.

        Args:
            reconstruction: ``(batch, y, x)`` magnitude.
            target: ``(batch, y, x)`` magnitude in the same unit.
            file: file name of each slice.
            slices: index of each slice in its file.
            peaks: file name -> maximum of the whole target; None: the maximum of the given slices.

        Raises:
            InputError: when shapes differ, images are too small, or not finite as float32.
        """
        reconstruction, target = (
            image.detach().float().cpu() for image in (reconstruction, target)
        )
        _check_images(reconstruction, target, ", ".join(sorted(set(file))))
        self.reconstructions.extend(reconstruction)
        self.targets.extend(target)
        self.keys.extend(zip(file, slices, strict=True))
        self.peaks |= peaks or {}

    def reset(self) -> None:
        """Remove all slices."""
        super().reset()
        self.keys, self.peaks = [], {}

    def compute(self) -> dict[str, list[Row]]:
        """Return ``{"slices": rows, "volumes": rows}``, ordered by file and slice."""
        order = sorted(range(len(self.keys)), key=lambda index: self.keys[index])
        slices: list[Row] = []
        volumes: list[Row] = []
        for file, group in groupby(order, key=lambda index: self.keys[index][0]):
            members = list(group)
            images = np.stack([self.reconstructions[index].numpy() for index in members])
            targets = np.stack([self.targets[index].numpy() for index in members])
            if not targets.any():
                raise InputError(
                    f"{file}: the target must not be all zero, got zeros; leave it out"
                )
            peak = self.peaks.get(file, float(targets.max()))
            for index, image, target in zip(members, images, targets, strict=True):
                scores = {
                    key: score.function(image, target, peak) for key, score in self.scores.items()
                }
                slices.append({"file": file, "slice": self.keys[index][1], **scores})
            volumes.append(
                {"file": file, "n_slices": len(members), **volume_scores(images, targets)}
            )
        return {"slices": slices, "volumes": volumes}


def _check_images(reconstruction: Tensor, target: Tensor, name: str) -> None:
    """Raise InputError unless both are finite and of one shape ``(slice, y, x)``, large enough."""
    if reconstruction.shape != target.shape or target.ndim != 3:
        raise InputError(
            f"{name}: the reconstruction must have the target's shape (slice, y, x) = "
            f"{tuple(target.shape)}, got {tuple(reconstruction.shape)}; evaluate it against the "
            "file that it was made from"
        )
    if min(target.shape[-2:]) < SMALLEST_IMAGE:
        raise InputError(
            f"{name}: images must be at least {SMALLEST_IMAGE} x {SMALLEST_IMAGE} pixels, "
            f"got {tuple(target.shape[-2:])}; leave the file out"
        )
    for role, images in (("reconstruction", reconstruction), ("target", target)):
        n_bad = int((~torch.isfinite(images)).sum())
        if n_bad:
            raise InputError(
                f"{name}: the {role} must be finite, got {n_bad} NaN or infinite pixels; "
                "make it again, or leave the file out"
            )
