"""Embedding banks: embeddings of good and bad images at several levels of an encoder.

For each level a bank keeps the PCA basis and the projected, normalised token embeddings of every
positive and negative image. Raw embeddings are not kept. `mrisem.prior.image.building` makes banks.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mrisem.prior.cache import Bank

Target = Literal["positive", "negative", "shuffled", "random"]
_TENSORS = ("mean", "components", "entries")


@dataclass(frozen=True)
class LevelBank:
    """Bank of one level.

    Args:
        mean: ``(feature,)`` float32, m of the PCA, subtracted before projection.
        components: ``(feature, component)`` float32, P of the PCA, with orthonormal columns.
        entries: ``(n, token * component)``, projected tokens of unit length; positives first.
        n_positives: number of entries that are positives.
        explained_variance: share of the variance of tokens that the components explain.
    """

    mean: Tensor
    components: Tensor
    entries: Tensor
    n_positives: int
    explained_variance: float

    @property
    def n_negatives(self) -> int:
        """Number of entries that are negatives."""
        return len(self.entries) - self.n_positives

    def project(self, features: Tensor) -> Tensor:
        """Project tokens, ``z_t = N(P^T (h_t - m))`` with N the normalisation to unit length.

        ``(n, token, feature)`` -> ``(n, token, component)`` float32 (docs/method.md, image route).
        """
        with torch.autocast(features.device.type, enabled=False):
            return normalize((features.float() - self.mean) @ self.components, dim=-1)

    def separation(self) -> float:
        """Compute the share of entries that lie nearer to their own side's centroid.

        Entry i of the positives and entry i of the negatives come from the same slice. Both are
        left out of the centroids that they are compared with; the PCA includes them. NaN for a
        single slice.
        """
        sides = self.entries[: self.n_positives].float(), self.entries[self.n_positives :].float()
        sums, n = [side.sum(0) for side in sides], self.n_positives
        n_right = 0
        for side, slice_entries in itertools.product((0, 1), zip(*sides, strict=True)):
            centroids = [
                (total - entry) / (n - 1) for total, entry in zip(sums, slice_entries, strict=True)
            ]
            distances = [(slice_entries[side] - centroid).norm() for centroid in centroids]
            n_right += int(distances[side] < distances[1 - side])
        return n_right / (2 * n) if n > 1 else float("nan")


def _turned(bank: LevelBank, target: Target, seed: int) -> LevelBank:
    """Turn the bank of one level towards a target (see `EmbeddingBank.turned`)."""
    generator = torch.Generator().manual_seed(seed)
    entries, n = bank.entries, bank.n_positives
    if target == "negative":
        # exchange the sides: the negatives come first
        entries, n = entries.roll(-n, 0), bank.n_negatives
    elif target == "shuffled":
        # deal the labels anew among the same entries
        entries = entries[torch.randperm(len(entries), generator=generator)]
    elif target == "random":
        # a bank of one random direction and its opposite
        n_tokens = entries.shape[1] // bank.components.shape[1]
        tokens = torch.randn(1, n_tokens, bank.components.shape[1], generator=generator)
        direction = normalize(tokens, dim=-1).flatten(1).to(entries)
        entries, n = torch.cat([direction, -direction]), 1
    return replace(bank, entries=entries, n_positives=n)


@dataclass(frozen=True)
class EmbeddingBank(Bank):
    """Bank of positives and negatives at every level.

    Args:
        levels: encoder layer, counted from 1 -> bank of that level.
    """

    FORMAT = "mrisem embedding bank 1"
    levels: dict[int, LevelBank]

    def to(self, device: torch.device | str) -> EmbeddingBank:
        """Return the bank on ``device``."""
        levels = {
            level: replace(bank, **{name: getattr(bank, name).to(device) for name in _TENSORS})
            for level, bank in self.levels.items()
        }
        return replace(self, levels=levels)

    def turned(self, target: Target) -> EmbeddingBank:
        """Return the bank whose loss pulls towards a target; all but ``positive`` are controls.

        ``negative`` exchanges the sides, ``shuffled`` deals the labels anew among the same entries,
        ``random`` replaces the bank by one random direction and its opposite. Draws are seeded by
        the level, so equal banks give equal controls.
        """
        levels = {level: _turned(bank, target, level) for level, bank in self.levels.items()}
        return replace(self, levels=levels)

    def summary(self) -> list[str]:
        """See `Bank`."""
        return [
            f"  level {level:<5} {bank.n_positives} + {bank.n_negatives} "
            f"entries, {bank.components.shape[1]} of {bank.components.shape[0]} components, "
            f"{100 * bank.explained_variance:.1f} % of the variance; held out, "
            f"{100 * bank.separation():.1f} % nearest to their own side"
            for level, bank in self.levels.items()
        ]

    def content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `Bank`."""
        tensors = {
            f"{level}.{name}": getattr(bank, name)
            for level, bank in self.levels.items()
            for name in _TENSORS
        }
        # the names of the tensors and these keys are the file's format: do not rename them
        numbers = {
            n: [bank.n_positives, bank.explained_variance] for n, bank in self.levels.items()
        }
        return tensors, {"levels": numbers}

    @classmethod
    def of_content(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> EmbeddingBank:
        """See `Bank`."""
        levels = {}
        for level, (n_positives, share) in facts["levels"].items():
            mean, components, entries = (tensors[f"{level}.{name}"] for name in _TENSORS)
            levels[int(level)] = LevelBank(mean, components, entries, n_positives, share)
        return cls(levels, description=facts["description"])
