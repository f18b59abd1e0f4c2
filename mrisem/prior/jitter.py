"""Random shifts and slight noise, over which every route averages its embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrisem.errors import InputError
from mrisem.physics.masks import stable_seed


@dataclass(frozen=True)
class Jitter:
    """Random shifts and slight noise over which embeddings are averaged.

    One copy costs nothing and still averages over the iterations of a fit: each has a shift of its
    own. All images of a batch share the draws, so that none depends on its neighbours.

    Args:
        copies: number of copies of each image, at least 1.
        max_shift: largest shift in pixels along each axis, cyclic.
        noise: standard deviation of the noise, as a share of the image's maximum.
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
                f"copies={self.copies}, max_shift={self.max_shift}, noise={self.noise}"
            )

    def __call__(self, magnitude: Tensor, iteration: int) -> Tensor:
        """``(batch, y, x)`` -> ``(batch * copies, y, x)``, the copies of an image together."""
        generator = torch.Generator().manual_seed(stable_seed("jitter", self.seed, iteration))
        span = (-self.max_shift, self.max_shift + 1)
        shifts = torch.randint(*span, (self.copies, 2), generator=generator).tolist()
        shifted = torch.stack([magnitude.roll(tuple(s), (1, 2)) for s in shifts], 1)
        noise = torch.randn((self.copies, *magnitude.shape[1:]), generator=generator).to(magnitude)
        peak = magnitude.detach().amax((1, 2))[:, None, None, None]
        return (shifted + self.noise * peak * noise).clamp_min(0).flatten(0, 1)
