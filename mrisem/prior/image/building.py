"""Building of embedding banks in two passes over the auxiliary images."""

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
    """Build a bank: the first pass takes second moments for the PCA, the second pass projects.

    Raw embeddings are dropped after their batch. Memory holds one ``(feature, feature)`` float64
    matrix for each level, and the projected bank.

    Args:
        encoder: frozen encoder on ``device``.
        images: positive and negative of each auxiliary slice, ``(Y, X)`` float32.
        components: number of PCA components of each level (paper: 64, 128, 256); None as an entry:
            no PCA at that level.
        description: facts on the bank, for people.
        device: device of the encoder.
        dtype: dtype of the stored entries, float32 or bfloat16.
        batch_size: largest number of slices that are encoded at once.
        unfinished: keeps the moments and the finished entries, from which an interrupted build
            continues; the bank is then the same, bit for bit. None: nothing is kept.

    Raises:
        InputError: when there are no images, a level has more components than dimensions or
            tokens, or the encoder's output is not finite.
    """
    unfinished = unfinished or Unfinished()
    state = unfinished.read()
    before = len(images) + int(state.get("done", 0)) if state else 0
    with progress("bank", 2 * len(images), "slices encoded", before) as bar:  # two passes
        if not state:
            state = _moments(encoder, images, device, batch_size, bar)
            unfinished.save(state)
        # The moments of all images are complete: fit one PCA for each level (docs/method.md).
        requested = zip(components, encoder.levels, strict=True)
        bases = [_Moments.of(state, i).basis(n, level) for i, (n, level) in enumerate(requested)]
        # tensors of an unfinished state: entries of each level, and the number of finished slices
        names = [f"entries {i}" for i in range(len(bases))]
        n, n_done = int(state["n"]), int(state.get("done", torch.tensor(0)))

        def current_state() -> dict[str, Tensor]:
            return {**state, "done": torch.tensor(n_done)}

        with unfinished.kept(current_state) as step:
            for features in _encode(encoder, images, device, batch_size, bar, n_done):
                count = features[0].shape[1]
                for name, feature, (mean, basis, _) in zip(names, features, bases, strict=True):
                    # z_t = N(P^T (h_t - m)), as `LevelBank.project` computes it for reconstructions
                    tokens = normalize((feature - mean.to(device)) @ basis.to(device), dim=-1)
                    if name not in state:
                        state[name] = torch.zeros((2, n, *tokens.shape[2:]), dtype=dtype)
                    state[name][:, n_done : n_done + count] = tokens.to("cpu", dtype)
                n_done += count
                step()
    # positives first, then negatives; the tokens of an entry as one row
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
    """Run the first pass: count the slices (``n``) and sum the moments of each level."""
    if len(images) == 0:
        raise InputError("a bank needs at least one auxiliary slice, got none; set auxiliary.root")
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
    """Encode slices in batches of one image size.

    Args:
        encoder: frozen encoder on ``device``.
        images: positive and negative of each auxiliary slice.
        device: device of the encoder.
        batch_size: largest number of slices in a batch.
        bar: counts the slices that were encoded.
        skip: number of first slices that are left out, since their batches are done.

    Yields:
        features of a batch: one ``(side, n, token, feature)`` float32 for each level.
    """
    pairs: list[Tensor] = []

    @torch.no_grad()
    def encode_pairs() -> list[Tensor]:
        stacked = rearrange(pairs, "n side y x -> (side n) y x").to(device)
        pairs.clear()
        features = [
            rearrange(
                level_features.float(), "(side n) token feature -> side n token feature", side=2
            )
            for level_features in encoder(stacked)
        ]
        for level, feature in zip(encoder.levels, features, strict=True):
            if not bool(torch.isfinite(feature).all()):
                raise InputError(
                    f"an encoder's output must be finite, got NaN or infinity at level {level} "
                    f"for slices of {tuple(stacked.shape[1:])} pixels; set encoder.dtype=float32"
                )
        bar.advance(stacked.shape[0] // 2)
        return features

    for positive, negative, _ in islice(images, skip, None):
        if positive.shape != negative.shape:
            raise InputError(
                "positive and negative of a slice must be prepared alike, got images of "
                f"{tuple(positive.shape)} and {tuple(negative.shape)}; crop both to one size"
            )
        # images of another size cannot share a batch
        pair = torch.stack([positive, negative])
        if pairs and (len(pairs) == batch_size or pairs[0].shape != pair.shape):
            yield encode_pairs()
        pairs.append(pair)
    if pairs:
        yield encode_pairs()


class _Moments:
    """First and second moments of tokens, summed in float64: an exact PCA needs no more.

    Args:
        width: number of features of a token.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.total = torch.zeros(width, dtype=torch.float64)
        self.square = torch.zeros(width, width, dtype=torch.float64)

    @classmethod
    def of(cls, state: dict[str, Tensor], index: int) -> _Moments:
        """Restore the moments of level number ``index`` from the result of `tensors`."""
        moments = cls(len(state[f"total {index}"]))
        moments.count = int(state[f"count {index}"])
        moments.total, moments.square = state[f"total {index}"], state[f"square {index}"]
        return moments

    def tensors(self, index: int) -> dict[str, Tensor]:
        """Return the sums under names that contain the level's number."""
        count = torch.tensor(self.count)
        return {
            f"count {index}": count,
            f"total {index}": self.total,
            f"square {index}": self.square,
        }

    def add(self, features: Tensor) -> None:
        """Add tokens ``(..., token, feature)``."""
        tokens = rearrange(features, "... feature -> (...) feature").double().cpu()
        self.count += len(tokens)
        self.total += tokens.sum(0)
        self.square += tokens.T @ tokens

    def basis(self, n_components: int | None, level: int) -> tuple[Tensor, Tensor, float]:
        """Compute the PCA: mean, basis ``(feature, component)``, share of explained variance."""
        width = len(self.total)
        if n_components is None:
            return torch.zeros(width), torch.eye(width), 1.0  # no PCA
        largest_number = min(self.count - 1, width)
        if not 1 <= n_components <= largest_number:
            raise InputError(
                f"prior.components at level {level} must be 1 to {largest_number} (the embedding's "
                f"width {width}, or the number of tokens less one), got {n_components}; lower it"
            )
        # covariance = E[h h^T] - m m^T; its eigenvectors with the largest eigenvalues are P
        mean = self.total / self.count
        covariance = self.square / self.count - torch.outer(mean, mean)
        values, vectors = torch.linalg.eigh(covariance)  # ascending
        basis = vectors.flip(1)[:, :n_components]
        largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
        basis = basis * largest.sign()  # the sign of an eigenvector is arbitrary: fix it
        share = values.flip(0)[:n_components].sum() / values.sum()
        return mean.float(), basis.float(), float(share)
