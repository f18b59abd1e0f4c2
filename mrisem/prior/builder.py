"""What the builders of both routes share: each acquisition's bank, from the cache or built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from mrisem.prior.cache import Bank, content_key, load_or_build
from mrisem.prior.prior import AuxiliaryData, AuxiliaryImages, Contrast, Prior


class BankPriorBuilder(ABC):
    """Makes a prior with a bank for each acquisition (`mrisem.prior.prior.PriorBuilder`)."""

    BANK: ClassVar[type[Bank]]
    folder: Path  # in which banks are cached
    contrast: Contrast  # of the auxiliary images

    @abstractmethod
    def load_encoder(self, device: torch.device) -> Any:
        """Load what embeds images."""

    @abstractmethod
    def recipe(
        self, encoder: Any, device: torch.device
    ) -> tuple[dict[str, Any], Callable[..., Bank]]:
        """Return all that a bank depends on beside its images, and what builds it.

        That is called with ``images`` and ``description`` and returns the bank on the CPU.
        """

    @abstractmethod
    def make_prior(self, encoder: Any, bank: Any) -> Prior:
        """Make the prior of a bank, both on the device."""

    def __call__(self, data: AuxiliaryData, device: torch.device) -> dict[str, Prior]:
        """Make the priors on a device: acquisition -> prior."""
        encoder = self.load_encoder(device)
        return {
            acquisition: self.make_prior(encoder, bank.to(device))
            for acquisition, bank, _ in self._banks(encoder, data, device)
        }

    def describe(self, data: AuxiliaryData, device: torch.device) -> Iterator[str]:
        """Yield a few lines on each bank: its images, entries, how well the sides separate."""
        encoder = self.load_encoder(device)
        for acquisition, bank, path in self._banks(encoder, data, device):
            images = bank.description["images"]
            lines = [
                f"bank for {acquisition} ({images['contrast']} contrast)",
                f"  made of     {images['n_slices']} slices of {len(images['subjects'])} subjects, "
                f"{', '.join(images['acquisitions'])}; negatives {images['negatives']} at R in "
                f"{images['accelerations']}",
                *bank.summary(),
                f"  file        {path} ({path.stat().st_size / 1e6:.1f} MB)",
            ]
            yield "\n".join(lines)

    def find_bank(
        self, encoder: Any, images: AuxiliaryImages, device: torch.device
    ) -> tuple[Bank, Path]:
        """Return the bank of these images, on the CPU, and its file.

        The file's name is the hash of everything that the bank depends on. One that is not there,
        or damaged, is built.
        """
        facts, build = self.recipe(encoder, device)
        facts["fingerprint"] = images.fingerprint
        path = self.folder / f"{content_key(facts)}.safetensors"
        description = {**facts, "images": images.describe()}
        make = partial(build, images=images, description=description)
        return load_or_build(path, self.BANK.load, make), path

    def _banks(
        self, encoder: Any, data: AuxiliaryData, device: torch.device
    ) -> Iterator[tuple[str, Bank, Path]]:
        for acquisition in data.reconstructed_acquisitions:
            images = data.auxiliary_slices(acquisition, self.contrast)
            yield acquisition, *self.find_bank(encoder, images, device)
