"""The semantic prior: an encoder and a bank make a loss on magnitude images."""

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
    """``L_sem = sum_l w_l L_l`` over the bank's levels (Feng et al., arXiv:2511.19641).

    Not an nn.Module on purpose: a task that holds it has neither the frozen encoder nor the bank in
    its state_dict.

    Args:
        encoder: frozen; gradients pass to its input only.
        bank: positives and negatives at the encoder's levels, on its device.
        level_weights: ``w``, one for each level (paper: 0.005, 0.5, 1).
        temperature: tau (paper: 0.07).
        jitter: average embeddings over shifts and noise; None: the image as it is.
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
        """Return level -> similarity to each bank entry, ``(batch, n)``, the positives first."""
        features = self._features(magnitude, iteration)
        return {
            level: token_similarity(bank.project(feature), bank.entries)
            for (level, bank), feature in zip(self.bank.levels.items(), features, strict=True)
        }

    def losses(self, magnitude: Tensor, iteration: int = 0) -> dict[str, Tensor]:
        """See `Prior`: ``semantic`` is the weighted sum of ``semantic_<level>``.

        ``positives_<level>`` and ``negatives_<level>`` are mean similarities to the bank's sides.
        """
        named, weighted = {}, []
        for weight, (level, s) in zip(
            self.level_weights, self.similarities(magnitude, iteration).items(), strict=True
        ):
            n = self.bank.levels[level].n_positives
            sides = s[:, :n], s[:, n:]
            named[f"semantic_{level}"] = info_nce(*sides, (self.temperature, self.temperature))
            named[f"positives_{level}"], named[f"negatives_{level}"] = (p.mean(1) for p in sides)
            weighted.append(weight * named[f"semantic_{level}"])
        return {"semantic": torch.stack(weighted).sum(0), **named}

    def signature(self, magnitude: Tensor) -> dict[str, Tensor]:
        """See `Prior`: each image's mean projected token, ``(batch, component)`` float32."""
        with torch.no_grad():
            features = self.encoder(magnitude)
        banks = self.bank.levels.items()
        return {
            str(level): bank.project(f).mean(1)
            for (level, bank), f in zip(banks, features, strict=True)
        }

    def bank_signature(self) -> dict[str, tuple[Tensor, Tensor]]:
        """See `Prior`: the same of the bank's entries."""
        sides = {}
        for level, bank in self.bank.levels.items():
            d = bank.components.shape[1]
            means = rearrange(bank.entries, "n (token d) -> n token d", d=d).float().mean(1)
            sides[str(level)] = (means[: bank.n_positives], means[bank.n_positives :])
        return sides

    def _features(self, magnitude: Tensor, iteration: int) -> tuple[Tensor, ...]:
        if self.jitter is None:
            return self.encoder(magnitude)
        pattern, n = "(batch copies) token feature -> batch token feature", self.jitter.copies
        features = self.encoder(self.jitter(magnitude, iteration))
        return tuple(reduce(f.float(), pattern, "mean", copies=n) for f in features)
