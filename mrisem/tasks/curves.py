"""What a fit logs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mrisem.physics.sense import Measurement
from mrisem.tasks.guidance import Guidance
from mrisem.types import SliceInfo


@dataclass
class FitCurves:
    """What was logged while a batch was fitted.

    Args:
        rows: Rows of ``fit.csv``: file, slice, iteration, name, value.
        zero_filled: signature of the zero-filled images, level -> ``(batch, feature)``.
        paths: the reconstructions' signatures, oldest first: iteration, level -> the same.
        bank: signature of the bank, level -> positives, negatives.
        diverged: places in the batch of slices whose fit was given up.
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
        """Add what the prior says of the images at an iteration, or of the final ones.

        Of these, also the loss's mean similarities to the bank's two sides, and where the bank and
        the zero-filled images stand.
        """
        prior, batch, magnitude = guidance.prior, guidance.batch, guidance.magnitude(image)
        self.add(batch.info, iteration, prior.diagnose(magnitude, None if final else iteration))
        self.paths.append((iteration, prior.signature(magnitude)))
        if final:
            sides = ("positives_", "negatives_")
            losses = prior.losses(magnitude)
            similarities = {k: v for k, v in losses.items() if k.startswith(sides)}
            self.add(batch.info, iteration, similarities)
            zero_filled = Measurement.of(batch).zero_filled
            self.zero_filled = prior.signature(guidance.magnitude(zero_filled))
            self.bank = prior.bank_signature()
