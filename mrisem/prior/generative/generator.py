"""Interface of a generator: a network of images that says where an image should move."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Generator(Protocol):
    """Frozen network of images, such as a diffusion model.

    Attributes:
        fingerprint: hash of all on which the pull depends.
    """

    fingerprint: str

    def prepare(self, magnitude: Tensor) -> Tensor:
        """Turn magnitudes to the network's own space, differentiably.

        Args:
            magnitude: ``(n, y, x)`` float32 in any unit, not negative.

        Returns:
            pixels or latents ``(n, channel, y', x')`` float32.
        """

    def pull(self, state: Tensor, acquisition: str, iteration: int, copies: int = 1) -> Tensor:
        """Compute what a gradient step takes away from prepared images; no gradient is recorded.

        Args:
            state: ``(image copies, channel, y', x')``, from `prepare`.
            acquisition: fastMRI's name of the scan's acquisition, for a text.
            iteration: step of the fit, which seeds random draws.
            copies: number of consecutive entries that are of one image. Each copy has draws of its
                own, and all images have the same.

        Returns:
            as ``state``; of a projection P it is ``state - P(state)``.
        """
