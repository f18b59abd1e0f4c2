"""The volume-aware collection: slices go in, in any order; rows come out."""

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from mrisem.errors import InputError
from mrisem.metrics.fidelity import volume_scores
from mrisem.metrics.score import Score

SMALLEST_IMAGE = 16  # pixels: HaarPSI's coarsest wavelet

Row = dict[str, str | int | float | None]


class VolumeMetrics(Metric):
    """Scores of slices, all with their volume's maximum as data range, and fastMRI's of volumes.

    A volume is what was given under one file name: all slices of it, or those reconstructed; its
    maximum is then given with them, so that a slice's scores do not depend on the others.
    Slices are kept until `compute`; call `reset` after each file when a whole test set does not fit
    into memory. One process: nothing is gathered from others. ``scores`` are by column name.
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
            target: ``(batch, y, x)`` magnitude, same units.
            file: the file of each slice.
            slices: the index of each slice in its file.
            peaks: file -> maximum of its whole target; None: of the targets given.

        Raises:
            InputError: shapes differ, images too small or not finite as float32.
        """
        reconstruction, target = (x.detach().float().cpu() for x in (reconstruction, target))
        _check_images(reconstruction, target, ", ".join(sorted(set(file))))
        self.reconstructions.extend(reconstruction)
        self.targets.extend(target)
        self.keys.extend(zip(file, slices, strict=True))
        self.peaks |= peaks or {}

    def reset(self) -> None:
        """Forget all slices."""
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
                raise InputError(f"{file}: the target must not be all zero; leave the file out")
            peak = self.peaks.get(file, float(targets.max()))
            for index, image, target in zip(members, images, targets, strict=True):
                scores = {key: s.function(image, target, peak) for key, s in self.scores.items()}
                slices.append({"file": file, "slice": self.keys[index][1], **scores})
            volumes.append(
                {"file": file, "n_slices": len(members), **volume_scores(images, targets)}
            )
        return {"slices": slices, "volumes": volumes}


def _check_images(reconstruction: Tensor, target: Tensor, name: str) -> None:
    """Raise InputError unless both are finite, of one shape ``(slice, y, x)``, not tiny."""
    if reconstruction.shape != target.shape or target.ndim != 3:
        raise InputError(
            f"{name}: the reconstruction must have the target's shape (slice, y, x) = "
            f"{tuple(target.shape)}, got {tuple(reconstruction.shape)}; was it made from this file?"
        )
    if min(target.shape[-2:]) < SMALLEST_IMAGE:
        raise InputError(
            f"{name}: images must be at least {SMALLEST_IMAGE} x {SMALLEST_IMAGE} pixels, "
            f"got {tuple(target.shape[-2:])}; leave the file out"
        )
    for what, images in (("reconstruction", reconstruction), ("target", target)):
        bad = int((~torch.isfinite(images)).sum())
        if bad:
            raise InputError(
                f"{name}: the {what} must be finite, got {bad} NaN or infinite pixels; "
                "make it again, or leave the file out"
            )
