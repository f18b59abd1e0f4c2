"""Random shifts and slight noise of images, over which both routes average embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrisem.errors import InputError
from mrisem.physics.masks import stable_seed


@dataclass(frozen=True)
class Jitter:
    """Random shifts and slight noise over which embeddings are averaged.

    Every iteration has its own draws, so even a single copy, which costs nothing, averages over the
    iterations of a fit. All images of a batch share the draws; none depends on its neighbours.

    Args:
        copies: number of copies of each image, at least 1.
        max_shift: largest cyclic shift along each axis, pixels, at least 0.
        noise: standard deviation of the noise, as a share of the image's maximum, at least 0.
        seed: seed of the draws, together with the iteration.

    Raises:
        InputError: when a number is out of its range.
    """

    copies: int
    max_shift: int = 4
    noise: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.copies < 1 or self.max_shift < 0 or self.noise < 0:
            raise InputError(
                "prior.jitter needs copies of at least 1, max_shift and noise of at least 0, got "
                f"copies={self.copies}, max_shift={self.max_shift}, noise={self.noise}; correct "
                "prior.jitter"
            )

    def __call__(self, magnitude: Tensor, iteration: int) -> Tensor:
        """Make copies: ``(batch, y, x)`` -> ``(batch * copies, y, x)``, image by image."""
        generator = torch.Generator().manual_seed(stable_seed("jitter", self.seed, iteration))
        span = (-self.max_shift, self.max_shift + 1)
        shifts = torch.randint(*span, (self.copies, 2), generator=generator).tolist()
        # a cyclic shift: encoders see the background of air on the other side, no new edge
        shifted = torch.stack([magnitude.roll(tuple(shift), (1, 2)) for shift in shifts], 1)
        noise = torch.randn((self.copies, *magnitude.shape[1:]), generator=generator).to(magnitude)
        # detached: the level of the noise is a constant, without a gradient to the image's maximum
        peak = magnitude.detach().amax((1, 2))[:, None, None, None]
        return (shifted + self.noise * peak * noise).clamp_min(0).flatten(0, 1)
