"""Interface of a compression, and the images and tokens that it learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from mrisem.data.auxiliary import AuxiliarySlices
from mrisem.physics.masks import stable_seed
from mrisem.prior.image.bank import EmbeddingBank, LevelBank
from mrisem.prior.image.encoder import Encoder
from mrisem.prior.image.prior import SemanticPrior

_MAX_SHIFT, _MAX_NOISE = 8, 0.05  # pixels; share of the image's maximum


class Compression(Protocol):
    """Way to make a cheaper encoder of a teacher (`mrisem.prior.image.compressed` loads it)."""

    def check(self, teacher: Any) -> None:
        """Raise InputError if an encoder cannot be compressed in this way."""

    def components(self, bank: EmbeddingBank) -> list[int | None]:
        """Return the components of each level of the new encoder's own bank.

        None stands for no PCA, where outputs are projected as the teacher's are.
        """

    def compress(
        self, teacher: SemanticPrior, images: AuxiliarySlices, folder: Path
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Make the network; continue what a stopped process has left in the folder.

        Args:
            teacher: prior with the encoder and its bank, on their device.
            images: auxiliary slices to learn from.
            folder: folder of unfinished work.

        Returns:
            facts and weights, as the encoder's loader reads them.
        """


@torch.no_grad()
def project(encoder: Encoder, parts: Sequence[LevelBank], images: Tensor) -> list[Tensor]:
    """Embed images ``(n, y, x)``, and project their tokens by the bank of each level."""
    features = encoder(images.to(parts[0].entries.device))
    return [part.project(feature) for part, feature in zip(parts, features, strict=True)]


def loss_gradient(prior: SemanticPrior, image: Tensor) -> Tensor:
    """Compute the gradient of a prior's loss at images ``(n, y, x)``."""
    image = image.detach().requires_grad_()
    return torch.autograd.grad(prior.losses(image)["semantic"].sum(), image)[0]


def varied_images(
    images: AuxiliarySlices, n: int, n_variants: int, seed: int
) -> Iterator[tuple[int, Tensor]]:
    """Draw images of many qualities: each slice clean, aliased, and mixtures of the two.

    Each has a random cyclic shift and little noise. Negatives are drawn anew, at other
    accelerations, each time that a slice comes again.

    Args:
        images: auxiliary slices.
        n: number of batches.
        n_variants: number of images of a slice in a batch, at least 2.
        seed: seed of all draws; batch i depends on seed and i alone.

    Yields:
        number of the batch, and its images ``(n_variants, y, x)`` with maximum 1.
    """
    numbers = iter(range(n))
    for again in count():
        settings = replace(images.settings, seed=images.settings.seed + again)
        for *sides, _ in images.of(images.volumes, settings):
            if (number := next(numbers, None)) is None:
                return
            good, bad = (side / side.max() for side in sides)
            generator = torch.Generator().manual_seed(stable_seed("varied", seed, number))
            share = torch.rand(n_variants, 1, 1, generator=generator)
            share[0], share[1] = 0, 1
            span = (-_MAX_SHIFT, _MAX_SHIFT + 1)
            shift = torch.randint(*span, (2,), generator=generator).tolist()
            mixed = ((1 - share) * good + share * bad).roll(shift, (1, 2))
            level = _MAX_NOISE * torch.rand(n_variants, 1, 1, generator=generator) ** 2
            noisy = mixed + level * torch.randn(mixed.shape, generator=generator)
            yield number, noisy.clamp_min(0) / noisy.amax((1, 2), keepdim=True)
