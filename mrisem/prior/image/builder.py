"""Builder of image-route priors: loads the encoder, finds or builds banks, makes the losses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from torch import nn

from mrisem.errors import InputError
from mrisem.prior.builder import BankPriorBuilder
from mrisem.prior.image.bank import EmbeddingBank, Target
from mrisem.prior.image.building import build_bank
from mrisem.prior.image.encoder import Encoder
from mrisem.prior.image.prior import SemanticPrior
from mrisem.prior.jitter import Jitter
from mrisem.prior.prior import Contrast

COMPONENTS = 64  # PCA components of a level for which none are configured
PAPER_WEIGHTS = (0.005, 0.5, 1.0)  # w of three levels (Feng et al., arXiv:2511.19641)


class ImagePriorBuilder(BankPriorBuilder):
    """Builder of a `SemanticPrior` for each acquisition.

    Args:
        encoder: function that makes the encoder. It is called with ``levels`` if it takes that
            argument; otherwise its encoder must offer the levels that are asked for.
        folder: folder in which banks are cached.
        contrast: contrast of the auxiliary images: that of the scan (``same``), another one
            (``cross``), or every one (``mixed``).
        levels: levels that are compared; None: all levels of the encoder.
        components: number of PCA components of each level; None as an entry: no PCA at that level;
            None: 64 at each level.
        level_weights: weight w of each level; None: those of the paper for three levels, else 1.
        temperature: tau of InfoNCE, above 0 (paper: 0.07).
        jitter: arguments of `Jitter`; None: no jitter.
        bank_dtype: dtype of the stored bank, ``float32`` or ``bfloat16``.
        target: side towards which the loss pulls: the ``positive`` side of the bank; as controls
            the ``negative`` side, the positives of ``shuffled`` labels, or a ``random`` direction.
    """

    BANK = EmbeddingBank

    def __init__(
        self,
        encoder: Callable[..., Encoder],
        folder: str | Path,
        contrast: Contrast = "same",
        levels: list[int] | None = None,
        components: list[Annotated[int, Ge(1)] | None] | None = None,
        level_weights: list[Annotated[float, Ge(0)]] | None = None,
        temperature: Annotated[float, Gt(0)] = 0.07,
        jitter: Mapping[str, Any] | None = None,
        bank_dtype: Literal["float32", "bfloat16"] = "float32",
        target: Target = "positive",
    ) -> None:
        self.make_encoder, self.folder, self.contrast = encoder, Path(folder), contrast
        self.levels, self.components, self.level_weights = levels, components, level_weights
        self.temperature, self.bank_dtype, self.target = temperature, bank_dtype, target
        self.jitter = None if jitter is None else Jitter(**jitter)
        if levels is not None:
            self._check_counts(levels)

    def load_encoder(self, device: torch.device) -> Encoder:
        """Load the encoder with the levels that are compared.

        Raises:
            InputError: when the encoder lacks such a level, or an option has another number of
                levels.
        """
        takes_levels = "levels" in inspect.signature(self.make_encoder).parameters
        chosen = {"levels": [*self.levels]} if self.levels is not None and takes_levels else {}
        encoder = self.make_encoder(**chosen)
        if len(encoder.widths) != len(encoder.levels):
            raise InputError(
                f"an encoder must state a width for each of its levels {[*encoder.levels]}, got "
                f"{[*encoder.widths]}; correct its attribute widths"
            )
        if self.levels is not None and tuple(self.levels) != tuple(encoder.levels):
            if not set(self.levels) <= set(encoder.levels):
                raise InputError(
                    f"prior.levels must be among the encoder's levels {[*encoder.levels]}, got "
                    f"{[*self.levels]}; set prior.levels to some of them"
                )
            # the encoder does not take ``levels``: select them from its outputs
            encoder = SomeLevels(encoder, tuple(self.levels))
        self._check_counts(encoder.levels)
        return encoder.to(device) if isinstance(encoder, nn.Module) else encoder

    def recipe(
        self, encoder: Encoder, device: torch.device
    ) -> tuple[dict[str, Any], Callable[..., EmbeddingBank]]:
        """See `BankPriorBuilder`."""
        components = self.components or [min(COMPONENTS, width) for width in encoder.widths]
        # these facts name cached banks: a change of them makes every bank anew
        facts = {
            "encoder": encoder.fingerprint,
            "levels": list(encoder.levels),
            "components": [*components],
            "dtype": self.bank_dtype,
        }
        dtype = getattr(torch, self.bank_dtype)
        return facts, partial(
            build_bank, encoder, components=components, device=device, dtype=dtype
        )

    def make_prior(self, encoder: Encoder, bank: EmbeddingBank) -> SemanticPrior:
        """See `BankPriorBuilder`."""
        n_levels = len(encoder.levels)
        weights = self.level_weights or (
            PAPER_WEIGHTS if n_levels == len(PAPER_WEIGHTS) else (1.0,) * n_levels
        )
        turned_bank = bank.turned(self.target)
        return SemanticPrior(encoder, turned_bank, [*weights], self.temperature, self.jitter)

    def _check_counts(self, levels: Sequence[int]) -> None:
        """Raise InputError unless components and weights have one entry for each level."""
        options = {"components": self.components, "level_weights": self.level_weights}
        for name, values in options.items():
            if values is not None and len(values) != len(levels):
                raise InputError(
                    f"prior.{name} needs one entry for each of the levels {[*levels]}, got "
                    f"{[*values]}; set it and prior.levels alike"
                )


class SomeLevels(nn.Module):
    """Encoder that returns only some levels of another encoder.

    Args:
        encoder: encoder with all levels.
        levels: levels that are returned, in this order.
    """

    def __init__(self, encoder: Encoder, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.levels = encoder, levels
        self._indices = [encoder.levels.index(level) for level in levels]
        self.widths = tuple(encoder.widths[index] for index in self._indices)
        self.n_tokens, self.fingerprint = encoder.n_tokens, encoder.fingerprint

    def forward(self, magnitude: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `Encoder`."""
        outputs = self.encoder(magnitude)
        return tuple(outputs[index] for index in self._indices)
