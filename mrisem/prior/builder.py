"""What the builders of both routes share: each acquisition's bank, from the cache or built."""

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
    """Makes a prior with a bank for each acquisition (`mrisem.prior.prior.PriorBuilder`)."""

    BANK: ClassVar[type[Bank]]
    folder: Path  # in which banks are cached
    contrast: Contrast  # of the auxiliary images
    _encoder: Any = None  # loaded once

    @abstractmethod
    def load_encoder(self, device: torch.device) -> Any:
        """Load what embeds images."""

    @abstractmethod
    def recipe(
        self, encoder: Any, device: torch.device
    ) -> tuple[dict[str, Any], Callable[..., Bank]]:
        """Return all that a bank depends on beside its images, and what builds it.

        That is called with ``images``, ``description`` and ``unfinished``, an `Unfinished`, and
        returns the bank on the CPU.
        """

    @abstractmethod
    def make_prior(self, encoder: Any, bank: Any) -> Prior:
        """Make the prior of a bank, both on the device."""

    def __call__(self, data: AuxiliaryData, device: torch.device) -> dict[str, Prior]:
        """Make the priors on a device: acquisition -> prior."""
        encoder = self._encoder_on(device)
        return {
            acquisition: self.make_prior(encoder, bank.to(device))
            for acquisition, bank, _ in self._banks(encoder, data, device)
        }

    def describe(self, data: AuxiliaryData, device: torch.device) -> Iterator[str]:
        """Yield a few lines on each bank: its images, entries, how well the sides separate."""
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
        """Return what the priors depend on: ``prior <acquisition>`` -> content key of its bank.

        No bank is built for that; the encoder is loaded, and kept for a later call.
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
        """Return the bank of these images, on the CPU, and its file.

        The file's name is the hash of everything that the bank depends on. One that is not there,
        or damaged, is built.
        """
        facts, build = self.recipe(encoder, device)
        path = self._bank_path(facts, images)

        def make() -> Bank:
            unfinished = Unfinished.beside(path)
            bank = build(images=images, description={}, unfinished=unfinished)
            # only now it is known which images were bad
            images_facts = {"fingerprint": images.fingerprint, "images": images.describe()}
            return replace(bank, description={**facts, **images_facts})

        return load_or_build(path, self.BANK.load, make), path

    def _encoder_on(self, device: torch.device) -> Any:
        """The encoder, loaded once."""
        if self._encoder is None:
            self._encoder = self.load_encoder(device)
        elif isinstance(self._encoder, nn.Module):
            self._encoder = self._encoder.to(device)
        return self._encoder

    def _bank_path(self, facts: dict[str, Any], images: AuxiliaryImages) -> Path:
        key = content_key({**facts, "fingerprint": images.fingerprint})
        return self.folder / f"{key}.safetensors"

    def _images(self, data: AuxiliaryData) -> Iterator[tuple[str, AuxiliaryImages]]:
        for acquisition in data.reconstructed_acquisitions:
            yield acquisition, data.auxiliary_slices(acquisition, self.contrast)

    def _banks(
        self, encoder: Any, data: AuxiliaryData, device: torch.device
    ) -> Iterator[tuple[str, Bank, Path]]:
        for acquisition, images in self._images(data):
            yield acquisition, *self.find_bank(encoder, images, device)
