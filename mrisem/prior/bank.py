"""Embedding banks: what good and bad images look like to the encoder.

A bank keeps, for each level, the PCA basis and the projected, normalised token embeddings of every
positive and negative image - never the raw ones. `mrisem.prior.build` makes it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mrisem.prior.bank_file import read_bank_file, write_bank_file
from mrisem.types import InputError

FORMAT = "mrisem embedding bank 1"


class Encoder(Protocol):
    """What a bank needs of an encoder (see `mrisem.prior.encoders.FrozenEncoder`)."""

    levels: tuple[int, ...]
    width: int
    fingerprint: str

    def __call__(self, magnitude: Tensor) -> tuple[Tensor, ...]:
        """``(n, y, x)`` magnitudes -> one ``(n, token, feature)`` for each level."""
        ...


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

    def project(self, features: Tensor) -> Tensor:
        """``(n, token, feature)`` -> ``(n, token, component)``, each token of unit length."""
        with torch.autocast(features.device.type, enabled=False):
            return normalize((features.float() - self.mean) @ self.components, dim=-1)

    def limit(self, n_positives: int | None, n_negatives: int | None) -> LevelBank:
        """Return the bank with the first so many positives and negatives; None keeps all.

        Raises:
            InputError: when the bank has fewer, or a number is below 1.
        """
        sides = {"positives": self.n_positives, "negatives": len(self.entries) - self.n_positives}
        for name, n in (("positives", n_positives), ("negatives", n_negatives)):
            if n is not None and not 1 <= n <= sides[name]:
                raise InputError(f"prior.n_{name} must be 1 to {sides[name]}, got {n}")
        positives = self.entries[: self.n_positives][:n_positives]
        negatives = self.entries[self.n_positives :][:n_negatives]
        entries = torch.cat([positives, negatives])
        return replace(self, entries=entries, n_positives=len(positives))

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

    def to(self, device: torch.device | str) -> LevelBank:
        """Return the bank on ``device``."""
        return replace(
            self,
            mean=self.mean.to(device),
            components=self.components.to(device),
            entries=self.entries.to(device),
        )


@dataclass(frozen=True)
class EmbeddingBank:
    """Positives and negatives at every level.

    Args:
        levels: encoder layer (1-based) -> its bank.
        description: what the bank is made of, for people and for the file's key.
    """

    levels: dict[int, LevelBank]
    description: dict[str, Any]

    def to(self, device: torch.device | str) -> EmbeddingBank:
        """Return the bank on ``device``."""
        return EmbeddingBank({k: v.to(device) for k, v in self.levels.items()}, self.description)

    def limit(self, n_positives: int | None, n_negatives: int | None) -> EmbeddingBank:
        """Return the bank with the first so many positives and negatives; None keeps all."""
        levels = {k: v.limit(n_positives, n_negatives) for k, v in self.levels.items()}
        return EmbeddingBank(levels, self.description)

    def save(self, path: Path) -> None:
        """Write to a safetensors file, wholly or not at all."""
        tensors, facts = {}, {}
        for level, bank in self.levels.items():
            for name in ("mean", "components", "entries"):
                tensors[f"{level}.{name}"] = getattr(bank, name).contiguous().cpu()
            facts[level] = [bank.n_positives, bank.explained_variance]
        write_bank_file(path, tensors, FORMAT, {"levels": facts}, self.description)

    @classmethod
    def load(cls, path: Path) -> EmbeddingBank:
        """Read a saved bank (memory-mapped).

        Raises:
            ValueError: when the file is damaged or not a bank.
        """
        tensors, facts = read_bank_file(path, FORMAT)
        levels = {
            int(level): LevelBank(
                tensors[f"{level}.mean"],
                tensors[f"{level}.components"],
                tensors[f"{level}.entries"],
                n_positives,
                explained_variance,
            )
            for level, (n_positives, explained_variance) in facts["levels"].items()
        }
        return cls(levels, facts["description"])


def bank_key(facts: dict[str, Any]) -> str:
    """Return the content key: equal facts have equal keys."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
