"""Base of the prior builders of both routes: a bank per acquisition, from the cache or built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from mrisem.prior.cache import Bank, Unfinished, content_key, load_or_build
from mrisem.prior.prior import AuxiliaryData, AuxiliaryImages, Contrast, Prior


class BankPriorBuilder(ABC):
    """Builder of a prior with a bank for each acquisition (`mrisem.prior.prior.PriorBuilder`)."""

    BANK: ClassVar[type[Bank]]  # class of the banks
    folder: Path  # folder in which banks are cached
    contrast: Contrast  # contrast of the auxiliary images
    _encoder: Any = None  # encoder, once it is loaded

    @abstractmethod
    def load_encoder(self, device: torch.device) -> Any:
        """Load the encoder of images onto the device."""

    @abstractmethod
    def recipe(
        self, encoder: Any, device: torch.device
    ) -> tuple[dict[str, Any], Callable[..., Bank]]:
        """Return the facts on which a bank depends beside its images, and the function to build it.

        The function takes ``images``, ``description`` and ``unfinished`` (an `Unfinished`) and
        returns the bank on the CPU.
        """

    @abstractmethod
    def make_prior(self, encoder: Any, bank: Any) -> Prior:
        """Make the prior from a bank; encoder and bank lie on the device."""

    def __call__(self, data: AuxiliaryData, device: torch.device) -> dict[str, Prior]:
        """See `PriorBuilder`."""
        encoder = self._encoder_on(device)
        return {
            acquisition: self.make_prior(encoder, bank.to(device))
            for acquisition, bank, _ in self._banks(encoder, data, device)
        }

    def describe(self, data: AuxiliaryData, device: torch.device) -> Iterator[str]:
        """Yield a few lines on each bank: images, entries, and separation of its two sides."""
        encoder = self._encoder_on(device)
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

    def contents(self, data: AuxiliaryData, device: torch.device) -> dict[str, str]:
        """Return ``prior <acquisition>`` -> content key of its bank (`PriorBuilder.contents`).

        No bank is built for this. The encoder is loaded, and kept for later calls.
        """
        encoder = self._encoder_on(device)
        facts, _ = self.recipe(encoder, device)
        return {
            f"prior {acquisition}": self._bank_path(facts, images).stem
            for acquisition, images in self._images(data)
        }

    def find_bank(
        self, encoder: Any, images: AuxiliaryImages, device: torch.device
    ) -> tuple[Bank, Path]:
        """Load the bank of these images, or build it if its file is missing or damaged.

        Returns:
            the bank on the CPU, and its file, whose name is the hash of everything on which the
            bank depends.
        """
        facts, build = self.recipe(encoder, device)
        path = self._bank_path(facts, images)

        def make() -> Bank:
            unfinished = Unfinished.beside(path)
            bank = build(images=images, description={}, unfinished=unfinished)
            # after the build, since only then the images' description names the unreadable ones
            images_facts = {"fingerprint": images.fingerprint, "images": images.describe()}
            return replace(bank, description={**facts, **images_facts})

        return load_or_build(path, self.BANK.load, make), path

    def _encoder_on(self, device: torch.device) -> Any:
        """Return the encoder on the device; it is loaded at the first call."""
        if self._encoder is None:
            self._encoder = self.load_encoder(device)
        elif isinstance(self._encoder, nn.Module):
            self._encoder = self._encoder.to(device)
        return self._encoder

    def _bank_path(self, facts: dict[str, Any], images: AuxiliaryImages) -> Path:
        """Return the file of a bank: the name hashes all on which the bank depends."""
        key = content_key({**facts, "fingerprint": images.fingerprint})
        return self.folder / f"{key}.safetensors"

    def _images(self, data: AuxiliaryData) -> Iterator[tuple[str, AuxiliaryImages]]:
        """Yield each acquisition with its auxiliary images."""
        for acquisition in data.reconstructed_acquisitions:
            yield acquisition, data.auxiliary_slices(acquisition, self.contrast)

    def _banks(
        self, encoder: Any, data: AuxiliaryData, device: torch.device
    ) -> Iterator[tuple[str, Bank, Path]]:
        """Yield each acquisition with its bank and the bank's file."""
        for acquisition, images in self._images(data):
            yield acquisition, *self.find_bank(encoder, images, device)
