"""Embedding banks: what good and bad images look like to the encoder.

A bank keeps, for each level, the PCA basis and the projected, normalised token embeddings of every
positive and negative image - never the raw ones.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from mrisem.types import InputError

logger = logging.getLogger(__name__)

FORMAT = "mrisem embedding bank 1"


class Encoder(Protocol):
    """What a bank needs of an encoder (see `mrisem.prior.encoders.FrozenEncoder`)."""

    levels: tuple[int, ...]
    width: int
    fingerprint: str

    def __call__(self, magnitude: Tensor) -> tuple[Tensor, ...]:
        """``(n, y, x)`` magnitudes -> one ``(n, token, feature)`` for each level."""
        ...


class Pooled:
    """An encoder whose tokens are averaged into one: for comparison without places.

    Args:
        encoder: whose features are averaged.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.levels, self.width = encoder.levels, encoder.width
        self.fingerprint = f"{encoder.fingerprint} pooled"

    def __call__(self, magnitude: Tensor) -> tuple[Tensor, ...]:
        """``(n, y, x)`` magnitudes -> one ``(n, 1, feature)`` for each level."""
        return tuple(features.mean(1, keepdim=True) for features in self.encoder(magnitude))


class ImagePairs(Sized, Iterable[tuple[Tensor, Tensor, Any]], Protocol):
    """(positive, negative, info) for each auxiliary slice, the same in every pass."""


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
        metadata = {
            "format": FORMAT,
            "levels": json.dumps(facts),
            "description": json.dumps(self.description),
            "sha256": _digest(tensors),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file(tensors, partial, metadata)
        partial.replace(path)
        path.with_suffix(".json").write_text(json.dumps(self.description, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> EmbeddingBank:
        """Read a saved bank (memory-mapped).

        Raises:
            ValueError: when the file is damaged or not a bank.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if metadata.get("format") != FORMAT or metadata["sha256"] != _digest(tensors):
            raise ValueError(f"{path} is damaged: its content does not match its checksum")
        levels = {
            int(level): LevelBank(
                *(tensors[f"{level}.{name}"] for name in ("mean", "components", "entries")),
                *facts,
            )
            for level, facts in json.loads(metadata["levels"]).items()
        }
        return cls(levels, json.loads(metadata["description"]))


def bank_key(facts: dict[str, Any]) -> str:
    """Return the content key: equal facts have equal keys."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def build_bank(
    encoder: Encoder,
    images: ImagePairs,
    components: Sequence[int | None],
    description: dict[str, Any],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    progress: bool = True,
) -> EmbeddingBank:
    """Build a bank in two streaming passes: second moments (PCA), then projection.

    No raw embedding outlives its slice: memory is one ``(feature, feature)`` float64 matrix a level
    and the projected bank.

    Args:
        encoder: frozen encoder on ``device``.
        images: positive and negative of each auxiliary slice, ``(Y, X)`` float32.
        components: PCA components of each level (paper: 64, 128, 256); None: no PCA there.
        description: what the bank is made of.
        device: where the encoder is.
        dtype: of the stored entries, float32 or bfloat16.
        progress: show a progress bar.

    Raises:
        InputError: no images; more components than the features have dimensions or tokens.
    """
    if len(images) == 0:
        raise InputError("a bank needs at least one auxiliary slice, got none; see auxiliary.root")
    if len(components) != len(encoder.levels):
        raise InputError(
            f"prior.components needs one number for each of the levels {list(encoder.levels)}, "
            f"got {list(components)}"
        )

    def encode(title: str) -> Iterator[list[Tensor]]:
        pairs = tqdm(images, desc=f"bank, {title}", unit="slice", disable=not progress)
        for positive, negative, _ in pairs:
            with torch.no_grad():
                sides = [encoder(image[None].to(device)) for image in (positive, negative)]
                yield [torch.cat(pair).float() for pair in zip(*sides, strict=True)]

    moments = [_Moments(encoder.width) for _ in encoder.levels]
    for features in encode("PCA"):
        for moment, feature in zip(moments, features, strict=True):
            moment.add(feature)
    wanted = zip(moments, components, encoder.levels, strict=True)
    bases = [moment.basis(n, level) for moment, n, level in wanted]
    projected: list[list[Tensor]] = [[] for _ in bases]
    for features in encode("projection"):
        for (mean, basis, _), feature, store in zip(bases, features, projected, strict=True):
            tokens = normalize((feature - mean.to(device)) @ basis.to(device), dim=-1)
            store.append(tokens.to("cpu", dtype))
    levels = {}
    for level, (mean, basis, variance), store in zip(encoder.levels, bases, projected, strict=True):
        entries = rearrange(store, "n side token feature -> (side n) (token feature)")
        levels[level] = LevelBank(mean, basis, entries, len(store), variance)
    return EmbeddingBank(levels, description)


class _Moments:
    """Exact first and second moments of tokens, accumulated in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.total = torch.zeros(width, dtype=torch.float64)
        self.square = torch.zeros(width, width, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add ``(n, token, feature)``."""
        tokens = rearrange(features, "n token feature -> (n token) feature").double().cpu()
        self.count += len(tokens)
        self.total += tokens.sum(0)
        self.square += tokens.T @ tokens

    def basis(self, n_components: int | None, level: int) -> tuple[Tensor, Tensor, float]:
        """Return mean, ``(feature, component)`` basis and the share of variance it explains."""
        width = len(self.total)
        if n_components is None:
            return torch.zeros(width), torch.eye(width), 1.0
        most = min(self.count - 1, width)
        if not 1 <= n_components <= most:
            raise InputError(
                f"prior.components at level {level} must be 1 to {most} (the smaller of the "
                f"embedding's width {width} and the tokens less one), got {n_components}"
            )
        mean = self.total / self.count
        covariance = self.square / self.count - torch.outer(mean, mean)
        values, vectors = torch.linalg.eigh(covariance)  # ascending
        basis = vectors.flip(1)[:, :n_components]
        largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
        basis = basis * largest.sign()  # an eigenvector's sign is free: fix it
        share = values.flip(0)[:n_components].sum() / values.sum()
        return mean.float(), basis.float(), float(share)


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
