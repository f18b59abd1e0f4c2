"""Values that are logged during a fit."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mrisem.physics.sense import Measurement
from mrisem.tasks.guidance import Guidance
from mrisem.types import SliceInfo


@dataclass
class FitCurves:
    """Values that were logged during the fit of a batch.

    Args:
        rows: rows of ``fit.csv``: file, slice, iteration, name, value.
        zero_filled: embeddings of the zero-filled images (`Prior.signature`): level ->
            ``(batch, feature)``.
        paths: embeddings of the reconstructions, oldest first: pairs of iteration and level ->
            ``(batch, feature)``.
        bank: embeddings of the bank: level -> positives, negatives.
        diverged: indices in the batch of slices whose fit was stopped.
    """

    rows: list[tuple[str, int, int, str, float]] = field(default_factory=list)
    zero_filled: dict[str, Tensor] = field(default_factory=dict)
    paths: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)
    bank: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    diverged: list[int] = field(default_factory=list)

    def add(self, infos: tuple[SliceInfo, ...], iteration: int, values: dict[str, Tensor]) -> None:
        """Add one row for each slice and value; values are ``(batch,)``."""
        for name, value in values.items():
            for info, number in zip(infos, value.tolist(), strict=True):
                self.rows.append((info.file, info.slice, iteration, name, number))

    @torch.no_grad()
    def add_image(
        self, guidance: Guidance, iteration: int, image: Tensor, *, final: bool = False
    ) -> None:
        """Add the prior's values and embeddings of the images at an iteration.

        For final images, add also their mean similarities to the two sides of the bank, and the
        embeddings of the bank and of the zero-filled images.

        Args:
            guidance: prior and batch.
            iteration: step of the fit.
            image: ``(batch, y, x)`` complex64.
            final: whether the images are the final ones.
        """
        prior, batch, magnitude = guidance.prior, guidance.batch, guidance.magnitude(image)
        self.add(batch.info, iteration, prior.diagnose(magnitude, None if final else iteration))
        self.paths.append((iteration, prior.signature(magnitude)))
        if final:
            sides = ("positives_", "negatives_")
            losses = prior.losses(magnitude)
            similarities = {name: value for name, value in losses.items() if name.startswith(sides)}
            self.add(batch.info, iteration, similarities)
            zero_filled = Measurement.of(batch).zero_filled
            self.zero_filled = prior.signature(guidance.magnitude(zero_filled))
            self.bank = prior.bank_signature()
