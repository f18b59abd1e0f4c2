"""Image-route priors of a run: load the encoder, find or build each bank, make the loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from torch import nn

from mrisem.errors import InputError
from mrisem.prior.image.bank import EmbeddingBank
from mrisem.prior.image.building import BankSettings, load_or_build_bank
from mrisem.prior.image.encoder import Encoder
from mrisem.prior.image.prior import SemanticPrior
from mrisem.prior.jitter import Jitter
from mrisem.prior.prior import AuxiliaryData, Contrast, Prior

COMPONENTS = 64  # PCA components of a level for which none are configured
PAPER_WEIGHTS = (0.005, 0.5, 1.0)  # w of three levels (Feng et al., arXiv:2511.19641)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ImagePriorBuilder:
    """Makes a `SemanticPrior` for each acquisition (`mrisem.prior.prior.PriorBuilder`).

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
        target: side of the bank that is wanted; ``negative`` is a control: it steers the other way.
    """

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
        target: Literal["positive", "negative"] = "positive",
    ) -> None:
        for name, values in {"components": components, "level_weights": level_weights}.items():
            if levels is not None and values is not None and len(values) != len(levels):
                raise InputError(
                    f"prior.{name} needs one entry for each of prior.levels {[*levels]}, got "
                    f"{[*values]}; set both alike"
                )
        self.make_encoder, self.folder, self.contrast = encoder, Path(folder), contrast
        self.levels, self.components, self.level_weights = levels, components, level_weights
        self.temperature, self.bank_dtype = temperature, _DTYPES[bank_dtype]
        self.jitter = None if jitter is None else Jitter(**jitter)
        self.target = target

    def __call__(self, data: AuxiliaryData, device: torch.device) -> dict[str, Prior]:
        """Make the priors on a device: acquisition -> prior."""
        encoder = self.load_encoder(device)
        n = len(encoder.levels)
        weights = self.level_weights or (PAPER_WEIGHTS if n == len(PAPER_WEIGHTS) else (1.0,) * n)
        return {
            acquisition: SemanticPrior(
                encoder, self._turned(bank).to(device), [*weights], self.temperature, self.jitter
            )
            for acquisition, bank, _ in self.banks(encoder, data, device)
        }

    def _turned(self, bank: EmbeddingBank) -> EmbeddingBank:
        return bank if self.target == "positive" else bank.swapped()

    def load_encoder(self, device: torch.device) -> Encoder:
        """Load the encoder with the levels that are compared.

        Raises:
            InputError: when it does not offer one of them, or states no width for a level.
        """
        chosen: dict[str, Any] = {}
        if self.levels is not None and "levels" in inspect.signature(self.make_encoder).parameters:
            chosen = {"levels": [*self.levels]}
        encoder = self.make_encoder(**chosen)
        if len(encoder.widths) != len(encoder.levels):
            raise InputError(
                f"an encoder must state a width for each of its levels {[*encoder.levels]}, got "
                f"{[*encoder.widths]}; correct its attribute widths"
            )
        if self.levels is not None and tuple(self.levels) != tuple(encoder.levels):
            encoder = SomeLevels(encoder, tuple(self.levels))
        return encoder.to(device) if isinstance(encoder, nn.Module) else encoder

    def banks(
        self, encoder: Encoder, data: AuxiliaryData, device: torch.device
    ) -> Iterator[tuple[str, EmbeddingBank, Path]]:
        """Yield each acquisition's bank, on the CPU, and the bank's file."""
        components = self.components or [min(COMPONENTS, width) for width in encoder.widths]
        settings = BankSettings([*components], self.folder, self.bank_dtype)
        for acquisition in data.reconstructed_acquisitions:
            images = data.auxiliary_slices(acquisition, self.contrast)
            yield acquisition, *load_or_build_bank(encoder, images, settings, device)

    def describe(self, data: AuxiliaryData, device: torch.device) -> Iterator[str]:
        """Yield a few lines on each bank: images, entries, levels, how well the sides separate."""
        for acquisition, bank, path in self.banks(self.load_encoder(device), data, device):
            yield bank.describe(acquisition, path)


class SomeLevels(nn.Module):
    """An encoder of which some levels are used.

    Args:
        encoder: offers more levels.
        levels: those that are wanted, in their order.

    Raises:
        InputError: when the encoder lacks one.
    """

    def __init__(self, encoder: Encoder, levels: tuple[int, ...]) -> None:
        super().__init__()
        if missing := [level for level in levels if level not in encoder.levels]:
            raise InputError(
                f"prior.levels must be among the encoder's levels {[*encoder.levels]}, got "
                f"{missing}; set prior.levels within them"
            )
        self.encoder, self.levels = encoder, levels
        self._places = [encoder.levels.index(level) for level in levels]
        self.widths = tuple(encoder.widths[place] for place in self._places)
        self.n_tokens, self.fingerprint = encoder.n_tokens, encoder.fingerprint

    def forward(self, magnitude: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """``(n, y, x)`` magnitudes -> one ``(n, token, feature)`` for each level."""
        outputs = self.encoder(magnitude)
        return tuple(outputs[place] for place in self._places)
