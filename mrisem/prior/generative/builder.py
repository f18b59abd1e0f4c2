"""Builder of generative priors: loads the generator, which needs no auxiliary images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from mrisem.prior.generative.generator import Generator
from mrisem.prior.generative.prior import GenerativePrior
from mrisem.prior.jitter import Jitter
from mrisem.prior.prior import AuxiliaryData, Prior, PriorBuilder


class GenerativePriorBuilder(PriorBuilder):
    """Builder of a `GenerativePrior` for each acquisition.

    Args:
        generator: function that makes the generator.
        jitter: arguments of `Jitter`; None: no jitter.
    """

    def __init__(
        self, generator: Callable[[], Generator], jitter: Mapping[str, Any] | None = None
    ) -> None:
        self.make_generator = generator
        self.jitter = None if jitter is None else Jitter(**jitter)
        self._generator: Any = None  # once it is loaded

    def load_generator(self, device: torch.device) -> Generator:
        """Return the generator on the device; it is loaded at the first call."""
        if self._generator is None:
            self._generator = self.make_generator()
        if isinstance(self._generator, nn.Module):
            self._generator = self._generator.to(device)
        generator: Generator = self._generator
        return generator

    def __call__(self, data: AuxiliaryData, device: torch.device) -> dict[str, Prior]:
        """See `PriorBuilder`; of the data only the acquisitions are read."""
        generator = self.load_generator(device)
        return {
            acquisition: GenerativePrior(generator, acquisition, self.jitter)
            for acquisition in data.reconstructed_acquisitions
        }

    def contents(self, data: AuxiliaryData, device: torch.device) -> dict[str, str]:
        """See `PriorBuilder`: the hash of the generator."""
        return {"prior generator": self.load_generator(device).fingerprint}
