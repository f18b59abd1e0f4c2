"""Embedding banks: what good and bad images look like to the encoder.

A bank keeps, for each level, the PCA basis and the projected, normalised token embeddings of every
positive and negative image - never the raw ones. `mrisem.prior.image.building` makes it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mrisem.prior.cache import file_line, read_bank_file, title, write_bank_file

FORMAT = "mrisem embedding bank 1"


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

    def swapped(self) -> LevelBank:
        """Return the bank with its two sides exchanged."""
        positives, negatives = self.entries[: self.n_positives], self.entries[self.n_positives :]
        return replace(self, entries=torch.cat([negatives, positives]), n_positives=len(negatives))

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

    def swapped(self) -> EmbeddingBank:
        """Return the bank with its two sides exchanged: it steers the other way."""
        levels = {k: v.swapped() for k, v in self.levels.items()}
        return EmbeddingBank(levels, self.description)

    def describe(self, acquisition: str, path: Path) -> str:
        """Describe the bank for people: its images, entries, and how well the sides separate.

        Args:
            acquisition: name of the acquisition that it guides.
            path: the bank's file.
        """
        lines = [title(acquisition, self.description["images"])]
        for level, one in self.levels.items():
            lines.append(
                f"  level {level:<5} {one.n_positives} + {len(one.entries) - one.n_positives} "
                f"entries, {one.components.shape[1]} of {one.components.shape[0]} components, "
                f"{100 * one.explained_variance:.1f} % of the variance; held out, "
                f"{100 * one.separation():.1f} % nearest to their own side"
            )
        return "\n".join([*lines, file_line(path)])

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
