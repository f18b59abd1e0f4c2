"""Building an embedding bank: two streaming passes over the auxiliary images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import normalize

from mrisem.errors import InputError
from mrisem.prior.cache import Unfinished
from mrisem.prior.image.bank import EmbeddingBank, LevelBank
from mrisem.prior.image.encoder import Encoder
from mrisem.prior.prior import AuxiliaryImages
from mrisem.progress import Bar, progress


def build_bank(
    encoder: Encoder,
    images: AuxiliaryImages,
    components: Sequence[int | None],
    description: dict[str, Any],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 8,
    unfinished: Unfinished | None = None,
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
        unfinished: keeps the moments, and the entries so far, of a build that may be interrupted;
            it continues from them, and the bank is the same, bit for bit.

    Raises:
        InputError: no images; more components than the features have dimensions or tokens; an
            encoder whose output is not finite.
    """
    unfinished = unfinished or Unfinished()
    state = unfinished.read()
    before = len(images) + int(state.get("done", 0)) if state else 0
    with progress("bank", 2 * len(images), "slices encoded", before) as bar:  # two passes
        if not state:
            state = _moments(encoder, images, device, batch_size, bar)
            unfinished.save(state)
        wanted = zip(components, encoder.levels, strict=True)
        bases = [_Moments.of(state, i).basis(n, level) for i, (n, level) in enumerate(wanted)]
        names = [f"entries {i}" for i in range(len(bases))]
        n, done = int(state["n"]), int(state.get("done", torch.tensor(0)))

        def so_far() -> dict[str, Tensor]:
            return {**state, "done": torch.tensor(done)}

        with unfinished.kept(so_far) as step:
            for features in _encode(encoder, images, device, batch_size, bar, done):
                count = features[0].shape[1]
                for name, feature, (mean, basis, _) in zip(names, features, bases, strict=True):
                    tokens = normalize((feature - mean.to(device)) @ basis.to(device), dim=-1)
                    if name not in state:
                        state[name] = torch.zeros((2, n, *tokens.shape[2:]), dtype=dtype)
                    state[name][:, done : done + count] = tokens.to("cpu", dtype)
                done += count
                step()
    levels = {}
    for level, (mean, basis, share), name in zip(encoder.levels, bases, names, strict=True):
        flat = rearrange(state[name], "side n token feature -> (side n) (token feature)")
        levels[level] = LevelBank(mean, basis, flat, n, share)
    return EmbeddingBank(levels, description=description)


def _moments(
    encoder: Encoder,
    images: AuxiliaryImages,
    device: torch.device | str,
    batch_size: int,
    bar: Bar,
) -> dict[str, Tensor]:
    """First pass: number of slices ``n``, and the moments of each level."""
    if len(images) == 0:
        raise InputError("a bank needs at least one auxiliary slice, got none; see auxiliary.root")
    moments = [_Moments(width) for width in encoder.widths]
    n = 0
    for features in _encode(encoder, images, device, batch_size, bar):
        n += features[0].shape[1]
        for moment, feature in zip(moments, features, strict=True):
            moment.add(feature)
    state = {"n": torch.tensor(n)}
    for i, moment in enumerate(moments):
        state |= moment.tensors(i)
    return state


def _encode(
    encoder: Encoder,
    images: AuxiliaryImages,
    device: torch.device | str,
    batch_size: int,
    bar: Bar,
    skip: int = 0,
) -> Iterator[list[Tensor]]:
    """Yield per level ``(side, n, token, feature)`` of up to ``batch_size`` slices of one size.

    The first ``skip`` slices, whose batches are done, are left out. The bar counts the others.
    """
    waiting: list[Tensor] = []

    @torch.no_grad()
    def flush() -> list[Tensor]:
        stacked = rearrange(waiting, "n side y x -> (side n) y x").to(device)
        waiting.clear()
        features = [
            rearrange(f.float(), "(side n) token feature -> side n token feature", side=2)
            for f in encoder(stacked)
        ]
        for level, feature in zip(encoder.levels, features, strict=True):
            if not bool(torch.isfinite(feature).all()):
                raise InputError(
                    f"an encoder's output must be finite, got NaN or infinity at level {level} "
                    f"for slices of {tuple(stacked.shape[1:])} pixels; take encoder.dtype=float32"
                )
        bar.advance(stacked.shape[0] // 2)
        return features

    for positive, negative, _ in islice(images, skip, None):
        if positive.shape != negative.shape:
            raise InputError(
                "positive and negative of a slice must be prepared alike, got images of "
                f"{tuple(positive.shape)} and {tuple(negative.shape)}; crop both to one size"
            )
        pair = torch.stack([positive, negative])
        if waiting and (len(waiting) == batch_size or waiting[0].shape != pair.shape):
            yield flush()
        waiting.append(pair)
    if waiting:
        yield flush()


class _Moments:
    """Exact first and second moments of tokens, accumulated in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.total = torch.zeros(width, dtype=torch.float64)
        self.square = torch.zeros(width, width, dtype=torch.float64)

    @classmethod
    def of(cls, state: dict[str, Tensor], index: int) -> _Moments:
        """Make the moments of level number ``index`` again from `tensors`."""
        moments = cls(len(state[f"total {index}"]))
        moments.count = int(state[f"count {index}"])
        moments.total, moments.square = state[f"total {index}"], state[f"square {index}"]
        return moments

    def tensors(self, index: int) -> dict[str, Tensor]:
        """Return the sums under names with the level's number."""
        count = torch.tensor(self.count)
        return {
            f"count {index}": count,
            f"total {index}": self.total,
            f"square {index}": self.square,
        }

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
