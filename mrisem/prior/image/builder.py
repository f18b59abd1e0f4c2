"""Image-route priors of a run: load the encoder, find or build each bank, make the loss."""

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
    """Makes a `SemanticPrior` for each acquisition.

    Args:
        encoder: makes the encoder. It is called with ``levels`` where it takes them; another one
            must offer the levels that are asked for.
        folder: folder in which banks are cached.
        contrast: auxiliary images of the scan's own contrast (``same``), of another one
            (``cross``), or of every one (``mixed``).
        levels: levels that are compared; None: the encoder's own.
        components: PCA components of each level; None for all: 64; None at one: no PCA there.
        level_weights: weight w of each level; None: the paper's for three levels, else 1.
        temperature: tau of InfoNCE, above 0 (paper: 0.07).
        jitter: arguments of `Jitter`; None: the image as it is.
        bank_dtype: ``float32`` or ``bfloat16`` of the stored bank.
        target: what the loss pulls towards: the bank's ``positive`` side; as controls its
            ``negative`` side, positives of ``shuffled`` labels, or a ``random`` direction.
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
            InputError: when it does not offer them, or an option is for another number of levels.
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
                    f"{[*self.levels]}; set prior.levels within them"
                )
            encoder = SomeLevels(encoder, tuple(self.levels))
        self._check_counts(encoder.levels)
        return encoder.to(device) if isinstance(encoder, nn.Module) else encoder

    def recipe(
        self, encoder: Encoder, device: torch.device
    ) -> tuple[dict[str, Any], Callable[..., EmbeddingBank]]:
        """See `BankPriorBuilder`."""
        components = self.components or [min(COMPONENTS, width) for width in encoder.widths]
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
        n = len(encoder.levels)
        weights = self.level_weights or (PAPER_WEIGHTS if n == len(PAPER_WEIGHTS) else (1.0,) * n)
        turned = bank.turned(self.target)
        return SemanticPrior(encoder, turned, [*weights], self.temperature, self.jitter)

    def _check_counts(self, levels: Sequence[int]) -> None:
        options = {"components": self.components, "level_weights": self.level_weights}
        for name, values in options.items():
            if values is not None and len(values) != len(levels):
                raise InputError(
                    f"prior.{name} needs one entry for each of the levels {[*levels]}, got "
                    f"{[*values]}; set it and prior.levels alike"
                )


class SomeLevels(nn.Module):
    """An encoder of which some levels are used."""

    def __init__(self, encoder: Encoder, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.levels = encoder, levels
        self._places = [encoder.levels.index(level) for level in levels]
        self.widths = tuple(encoder.widths[place] for place in self._places)
        self.n_tokens, self.fingerprint = encoder.n_tokens, encoder.fingerprint

    def forward(self, magnitude: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `Encoder`."""
        outputs = self.encoder(magnitude)
        return tuple(outputs[place] for place in self._places)
