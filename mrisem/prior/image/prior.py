"""Semantic prior of the image route: a loss on magnitude images from an encoder and a bank."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange, reduce
from torch import Tensor

from mrisem.prior.contrastive import info_nce, token_similarity
from mrisem.prior.image.bank import EmbeddingBank
from mrisem.prior.image.encoder import Encoder
from mrisem.prior.jitter import Jitter
from mrisem.prior.prior import Prior


class SemanticPrior(Prior):
    """Loss ``L_sem = sum_l w_l L_l`` over the bank's levels (Feng et al., arXiv:2511.19641).

    ``L_l`` is the InfoNCE loss of level l, on similarities ``s_n`` to the bank's entries n. The
    class is not an nn.Module, so that checkpoints of a task contain neither encoder nor bank.

    Args:
        encoder: frozen encoder; gradients reach its input only.
        bank: positives and negatives at the encoder's levels, on the encoder's device.
        level_weights: w of each level (paper: 0.005, 0.5, 1).
        temperature: tau of InfoNCE (paper: 0.07).
        jitter: shifts and noise over which embeddings are averaged; None: no jitter.
    """

    def __init__(
        self,
        encoder: Encoder,
        bank: EmbeddingBank,
        level_weights: Sequence[float] = (0.005, 0.5, 1.0),
        temperature: float = 0.07,
        jitter: Jitter | None = None,
    ) -> None:
        self.encoder, self.bank, self.jitter = encoder, bank, jitter
        self.level_weights, self.temperature = tuple(level_weights), temperature

    def similarities(self, magnitude: Tensor, iteration: int = 0) -> dict[int, Tensor]:
        """Compute level -> similarity to each bank entry, ``(batch, n)``, the positives first."""
        features = self._features(magnitude, iteration)
        return {
            level: token_similarity(bank.project(feature), bank.entries)
            for (level, bank), feature in zip(self.bank.levels.items(), features, strict=True)
        }

    def losses(self, magnitude: Tensor, iteration: int = 0) -> dict[str, Tensor]:
        """See `Prior`: ``semantic`` is the weighted sum of ``semantic_<level>``.

        ``positives_<level>`` and ``negatives_<level>`` are mean similarities to the two sides of
        the bank.
        """
        named, weighted = {}, []
        for weight, (level, similarity) in zip(
            self.level_weights, self.similarities(magnitude, iteration).items(), strict=True
        ):
            n_positives = self.bank.levels[level].n_positives
            # L_l = -log( sum_pos exp(s / tau) / sum_all exp(s / tau) )
            sides = similarity[:, :n_positives], similarity[:, n_positives:]
            named[f"semantic_{level}"] = info_nce(*sides, (self.temperature, self.temperature))
            named[f"positives_{level}"], named[f"negatives_{level}"] = (
                side.mean(1) for side in sides
            )
            weighted.append(weight * named[f"semantic_{level}"])
        return {"semantic": torch.stack(weighted).sum(0), **named}

    def signature(self, magnitude: Tensor) -> dict[str, Tensor]:
        """See `Prior`: mean of the projected tokens of an image, ``(batch, component)`` float32."""
        with torch.no_grad():
            features = self.encoder(magnitude)
        banks = self.bank.levels.items()
        return {
            str(level): bank.project(level_features).mean(1)
            for (level, bank), level_features in zip(banks, features, strict=True)
        }

    def bank_signature(self) -> dict[str, tuple[Tensor, Tensor]]:
        """See `Prior`: mean of the projected tokens of each bank entry."""
        sides = {}
        for level, bank in self.bank.levels.items():
            pattern, n = "n (token component) -> n token component", bank.components.shape[1]
            means = rearrange(bank.entries, pattern, component=n).float().mean(1)
            sides[str(level)] = (means[: bank.n_positives], means[bank.n_positives :])
        return sides

    def _features(self, magnitude: Tensor, iteration: int) -> tuple[Tensor, ...]:
        """Embed images, averaged over the copies of the jitter if there is one."""
        if self.jitter is None:
            return self.encoder(magnitude)
        # the mean over the copies, before projection
        pattern, n = "(batch copies) token feature -> batch token feature", self.jitter.copies
        features = self.encoder(self.jitter(magnitude, iteration))
        return tuple(reduce(f.float(), pattern, "mean", copies=n) for f in features)
