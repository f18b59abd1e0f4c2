"""Embedding banks: what good and bad images look like to the encoder.

A bank keeps, for each level, the PCA basis and the projected, normalised token embeddings of every
positive and negative image - never the raw ones. `mrisem.prior.image.building` makes it.
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
    """The bank of one level.

    Args:
        mean: ``(feature,)`` float32, subtracted before projection.
        components: ``(feature, component)`` float32, orthonormal columns (PCA).
        entries: ``(n, token * component)``, tokens projected and of unit length; positives first.
        n_positives: how many entries are positives.
        explained_variance: share of the tokens' variance inside the components.
    """

    mean: Tensor
    components: Tensor
    entries: Tensor
    n_positives: int
    explained_variance: float

    @property
    def n_negatives(self) -> int:
        """How many entries are negatives."""
        return len(self.entries) - self.n_positives

    def project(self, features: Tensor) -> Tensor:
        """``(n, token, feature)`` -> ``(n, token, component)``, each token of unit length."""
        with torch.autocast(features.device.type, enabled=False):
            return normalize((features.float() - self.mean) @ self.components, dim=-1)

    def separation(self) -> float:
        """Share of entries nearest to their own side's centroid, their own slice held out.

        Entry i of the positives and of the negatives is the same slice: both are left out of the
        centroids that they are compared with. The PCA has seen them. NaN with a single slice.
        """
        sides = self.entries[: self.n_positives].float(), self.entries[self.n_positives :].float()
        totals, n = [side.sum(0) for side in sides], self.n_positives
        right = 0
        for own, pair in itertools.product((0, 1), zip(*sides, strict=True)):
            centroids = [(total - e) / (n - 1) for total, e in zip(totals, pair, strict=True)]
            distances = [(pair[own] - centroid).norm() for centroid in centroids]
            right += int(distances[own] < distances[1 - own])
        return right / (2 * n) if n > 1 else float("nan")


def _turned(bank: LevelBank, target: Target, seed: int) -> LevelBank:
    """Exchange the sides, deal the labels anew, or put one random direction and its opposite."""
    generator = torch.Generator().manual_seed(seed)
    entries, n = bank.entries, bank.n_positives
    if target == "negative":
        entries, n = entries.roll(-n, 0), bank.n_negatives
    elif target == "shuffled":
        entries = entries[torch.randperm(len(entries), generator=generator)]
    elif target == "random":
        n_tokens = entries.shape[1] // bank.components.shape[1]
        tokens = torch.randn(1, n_tokens, bank.components.shape[1], generator=generator)
        direction = normalize(tokens, dim=-1).flatten(1).to(entries)
        entries, n = torch.cat([direction, -direction]), 1
    return replace(bank, entries=entries, n_positives=n)


@dataclass(frozen=True)
class EmbeddingBank(Bank):
    """Positives and negatives at every level.

    Args:
        levels: encoder layer (1-based) -> its bank.
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
        """Return the bank that pulls towards ``target``; all but ``positive`` are controls.

        Draws are seeded by the level: equal banks give equal controls.
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
