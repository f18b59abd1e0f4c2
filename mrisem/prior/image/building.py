"""Building an embedding bank: two streaming passes over the auxiliary images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from mrisem.errors import InputError
from mrisem.prior.image.bank import EmbeddingBank, LevelBank
from mrisem.prior.image.encoder import Encoder
from mrisem.prior.prior import AuxiliaryImages


def build_bank(
    encoder: Encoder,
    images: AuxiliaryImages,
    components: Sequence[int | None],
    description: dict[str, Any],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 8,
) -> EmbeddingBank:
    """Build a bank: second moments first (PCA), then projection.

    No raw embedding outlives its batch: memory is one ``(feature, feature)`` float64 matrix a level
    and the projected bank, which is filled in place.

    Args:
        encoder: frozen encoder on ``device``.
        images: positive and negative of each auxiliary slice, ``(Y, X)`` float32.
        components: PCA components of each level (paper: 64, 128, 256); None: no PCA there.
        description: what the bank is made of.
        device: where the encoder is.
        dtype: dtype of the stored entries, float32 or bfloat16.
        batch_size: most slices that are encoded at once.

    Raises:
        InputError: no images; more components than the features have dimensions or tokens.
    """
    n = len(images)
    if n == 0:
        raise InputError("a bank needs at least one auxiliary slice, got none; see auxiliary.root")
    moments = [_Moments(width) for width in encoder.widths]
    for features in _encode(encoder, images, device, batch_size, "PCA"):
        for moment, feature in zip(moments, features, strict=True):
            moment.add(feature)
    wanted = zip(moments, components, encoder.levels, strict=True)
    bases = [moment.basis(count, level) for moment, count, level in wanted]
    entries = [torch.empty(0)] * len(bases)
    done = 0
    for features in _encode(encoder, images, device, batch_size, "projection"):
        count = features[0].shape[1]
        for index, (feature, (mean, basis, _)) in enumerate(zip(features, bases, strict=True)):
            tokens = normalize((feature - mean.to(device)) @ basis.to(device), dim=-1)
            if not done:
                entries[index] = torch.empty((2, n, *tokens.shape[2:]), dtype=dtype)
            entries[index][:, done : done + count] = tokens.to("cpu", dtype)
        done += count
    levels = {}
    for level, (mean, basis, share), entry in zip(encoder.levels, bases, entries, strict=True):
        flat = rearrange(entry, "side n token feature -> (side n) (token feature)")
        levels[level] = LevelBank(mean, basis, flat, n, share)
    return EmbeddingBank(levels, description=description)


def _encode(
    encoder: Encoder,
    images: AuxiliaryImages,
    device: torch.device | str,
    batch_size: int,
    title: str,
) -> Iterator[list[Tensor]]:
    """Yield per level ``(side, n, token, feature)`` of up to ``batch_size`` slices of one size."""
    waiting: list[Tensor] = []

    @torch.no_grad()
    def flush() -> list[Tensor]:
        stacked = rearrange(waiting, "n side y x -> (side n) y x").to(device)
        waiting.clear()
        return [
            rearrange(f.float(), "(side n) token feature -> side n token feature", side=2)
            for f in encoder(stacked)
        ]

    for positive, negative, _ in tqdm(images, f"bank, {title}", unit="slice"):
        if positive.shape != negative.shape:
            raise InputError(
                "positive and negative of a slice must be prepared alike, got images of "
                f"{tuple(positive.shape)} and {tuple(negative.shape)}; crop both to one size"
            )
        pair = torch.stack([positive, negative])
        if waiting and (len(waiting) == batch_size or waiting[0].shape != pair.shape):
            yield flush()
        waiting.append(pair)
    yield flush()


class _Moments:
    """Exact first and second moments of tokens, accumulated in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.total = torch.zeros(width, dtype=torch.float64)
        self.square = torch.zeros(width, width, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add ``(..., token, feature)``."""
        tokens = rearrange(features, "... feature -> (...) feature").double().cpu()
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
