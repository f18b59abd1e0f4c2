"""`mrisem bank`: build an embedding bank, or show the one that is there."""

from __future__ import annotations

from omegaconf import DictConfig

from mrisem.prior.bank import EmbeddingBank
from mrisem.tasks.callbacks.embedding_bank import load_or_build_bank
from mrisem.types import InputError
from mrisem.verbs.pieces import bank_settings, encoder_loader, make_datamodule


def run(config: DictConfig) -> int:
    """Build or load the bank of each acquisition that would be reconstructed, and describe it."""
    if config.prior.name == "none":
        raise InputError("prior=none has no bank; set prior=image_same or prior=image_cross")
    data = make_datamodule(config, config.scale.fit.slices_at_once)
    data.setup("predict")
    encoder = encoder_loader(config)("cpu")
    for acquisition in data.reconstructed_acquisitions:
        images = data.auxiliary_slices(acquisition)
        bank, path = load_or_build_bank(encoder, images, bank_settings(config))
        print(describe(acquisition, bank))
        print(f"  file        {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def describe(acquisition: str, bank: EmbeddingBank) -> str:
    """Return a few lines on a bank: its images, entries, levels and how well the sides separate."""
    images = bank.description["images"]
    lines = [
        f"bank for {acquisition} ({images['contrast']} contrast)",
        f"  made of     {images['n_slices']} slices of {len(images['subjects'])} subjects, "
        f"{', '.join(images['acquisitions'])}; negatives {images['negatives']} at R in "
        f"{images['accelerations']}",
    ]
    for level, one in bank.levels.items():
        lines.append(
            f"  level {level:<5} {one.n_positives} + {len(one.entries) - one.n_positives} entries, "
            f"{one.components.shape[1]} of {one.components.shape[0]} components, "
            f"{100 * one.explained_variance:.1f} % of the variance, "
            f"{100 * one.separation():.1f} % of entries nearest to their own side, held out"
        )
    return "\n".join(lines)
