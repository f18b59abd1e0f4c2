"""The semantic prior: an encoder and a bank make a loss on magnitude images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mrisem.prior.bank import EmbeddingBank, Encoder
from mrisem.prior.contrastive import info_nce, token_similarity
from mrisem.types import InputError


class SemanticPrior:
    """``L_sem = sum_l w_l L_l`` over the bank's levels (method.md section 2).

    Not an nn.Module on purpose: a task that holds it has neither the frozen encoder nor the bank in
    its state_dict.

    Args:
        encoder: frozen; gradients pass to its input only.
        bank: positives and negatives at the encoder's levels.
        level_weights: ``w``, one for each level (paper: 0.005, 0.5, 1).
        temperature: tau (paper: 0.07).

    Raises:
        InputError: when the number of weights is not that of the levels, or the bank's levels are
            not the encoder's.
    """

    def __init__(
        self,
        encoder: Encoder,
        bank: EmbeddingBank,
        level_weights: Sequence[float] = (0.005, 0.5, 1.0),
        temperature: float = 0.07,
    ) -> None:
        if tuple(bank.levels) != tuple(encoder.levels):
            raise InputError(f"bank has levels {[*bank.levels]}, encoder {[*encoder.levels]}")
        if len(level_weights) != len(bank.levels):
            raise InputError(
                f"prior.level_weights needs one number for each of the levels {[*bank.levels]}, "
                f"got {list(level_weights)}"
            )
        self.encoder = encoder
        self.bank = bank
        self.level_weights = tuple(level_weights)
        self.temperature = temperature

    def similarities(self, magnitude: Tensor) -> dict[int, Tensor]:
        """Return the similarity of each image to every bank entry, per level.

        Args:
            magnitude: ``(batch, y, x)`` float32, of any positive scale.

        Returns:
            level -> ``(batch, n)`` float32, the positives first.
        """
        features = self.encoder(magnitude)
        return {
            level: token_similarity(bank.project(feature), bank.entries)
            for (level, bank), feature in zip(self.bank.levels.items(), features, strict=True)
        }

    def losses(self, magnitude: Tensor) -> dict[str, Tensor]:
        """Return ``semantic``, the weighted sum, and ``semantic_<level>``, each level's own.

        Args:
            magnitude: ``(batch, y, x)`` float32.

        Returns:
            name -> ``(batch,)`` float32.
        """
        levels = {
            level: info_nce(s, self.bank.levels[level].n_positives, self.temperature)
            for level, s in self.similarities(magnitude).items()
        }
        weighted = [w * loss for w, loss in zip(self.level_weights, levels.values(), strict=True)]
        named = {f"semantic_{level}": loss for level, loss in levels.items()}
        return {"semantic": torch.stack(weighted).sum(0), **named}
