"""Builds or loads the embedding banks before anything is fitted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch

from mrisem.data.auxiliary import AuxiliarySlices
from mrisem.prior.bank import EmbeddingBank, Encoder, bank_key
from mrisem.prior.bank_file import load_or_build
from mrisem.prior.build import build_bank
from mrisem.prior.semantic import SemanticPrior
from mrisem.tasks.base import ReconstructionTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BankSettings:
    """What a bank is made with, beside encoder and images.

    Args:
        components: PCA components per level (paper: 64, 128, 256).
        folder: where banks are cached.
        dtype: of the stored entries.
        progress: show progress bars.
    """

    components: Sequence[int | None]
    folder: Path
    dtype: torch.dtype = torch.float32
    progress: bool = True


def load_or_build_bank(
    encoder: Encoder,
    images: AuxiliarySlices,
    settings: BankSettings,
    device: torch.device | str = "cpu",
) -> tuple[EmbeddingBank, Path]:
    """Return the bank of these images, from the cache if it is there and sound.

    The file's name is the hash of everything that the bank depends on: encoder weights and
    preprocessing, levels, components, dtype, auxiliary files, slices, masks and seed. A lock lets
    two processes that want the same bank build it once.

    Returns:
        the bank, and its file.
    """
    facts = {
        "encoder": encoder.fingerprint,
        "levels": list(encoder.levels),
        "components": list(settings.components),
        "dtype": str(settings.dtype).removeprefix("torch."),
        "fingerprint": images.fingerprint,
    }
    description = {**facts, "images": images.describe()}
    path = settings.folder / f"{bank_key(facts)}.safetensors"

    def build() -> EmbeddingBank:
        return build_bank(
            encoder,
            images,
            settings.components,
            description,
            device=device,
            dtype=settings.dtype,
            progress=settings.progress,
        )

    return load_or_build(path, EmbeddingBank.load, build), path


class EmbeddingBankCallback(pl.Callback):
    """Gives a task its priors: one bank for each acquisition that will be reconstructed.

    Args:
        load_encoder: makes the frozen encoder on a device; called once, when it is needed.
        auxiliary: acquisition -> the auxiliary slices of its bank.
        settings: components, cache folder, dtype.
        make_prior: encoder and bank -> the prior.
    """

    def __init__(
        self,
        load_encoder: Callable[[torch.device | str], Encoder],
        auxiliary: dict[str, AuxiliarySlices],
        settings: BankSettings,
        make_prior: Callable[[Encoder, EmbeddingBank], SemanticPrior],
    ) -> None:
        self.load_encoder = load_encoder
        self.auxiliary = auxiliary
        self.settings = settings
        self.make_prior = make_prior

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build or load the banks on the task's device. Rank 0 goes first; the others load."""
        as_task(pl_module).priors = self.priors(pl_module.device)

    def priors(self, device: torch.device | str) -> dict[str, SemanticPrior]:
        """Return acquisition -> prior, on ``device``."""
        encoder = self.load_encoder(device)
        priors = {}
        for acquisition, images in self.auxiliary.items():
            bank, path = load_or_build_bank(encoder, images, self.settings, device)
            logger.info("bank for %s: %d + %d entries, %s", acquisition, *_counts(bank), path.name)
            priors[acquisition] = self.make_prior(encoder, bank.to(device))
        return priors


def _counts(bank: EmbeddingBank) -> tuple[int, int]:
    level = next(iter(bank.levels.values()))
    return level.n_positives, len(level.entries) - level.n_positives


def as_task(module: pl.LightningModule) -> ReconstructionTask:
    """Return the module as the task that it must be.

    Raises:
        TypeError: when it is another LightningModule.
    """
    if not isinstance(module, ReconstructionTask):
        raise TypeError(f"a prior guides a ReconstructionTask, got {type(module).__name__}")
    return module
