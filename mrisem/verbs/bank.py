"""`mrisem bank`: build an embedding bank, or show the one that is there."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from mrisem.prior.bank import EmbeddingBank
from mrisem.prior.ranking import pair_ranking_share, ranking_share
from mrisem.prior.response_bank import LanguageBank
from mrisem.types import InputError
from mrisem.verbs.pieces import make_datamodule
from mrisem.verbs.priors import image_banks, language_banks


def run(config: DictConfig) -> int:
    """Build or load the bank of each acquisition that would be reconstructed, and describe it."""
    if config.prior.name == "none":
        raise InputError("prior=none has no bank; set prior=image_same, image_cross or another")
    data = make_datamodule(config, config.scale.fit.slices_at_once)
    data.setup("predict")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if "center" in config.prior:
        for acquisition, (responses, path) in language_banks(config, data, device)[2].items():
            print(_describe_responses(acquisition, responses, path))
    else:
        for acquisition, (bank, path) in image_banks(config, data, device)[1].items():
            print(_describe(acquisition, bank, path))
    return 0


def _describe(acquisition: str, bank: EmbeddingBank, path: Path) -> str:
    """A few lines on a bank: its images, entries, levels and how well the sides separate."""
    lines = [_title(acquisition, bank.description["images"])]
    for level, one in bank.levels.items():
        lines.append(
            f"  level {level:<5} {one.n_positives} + {len(one.entries) - one.n_positives} entries, "
            f"{one.components.shape[1]} of {one.components.shape[0]} components, "
            f"{100 * one.explained_variance:.1f} % of the variance; held out, "
            f"{100 * one.separation():.1f} % nearest to their own side"
        )
    return "\n".join([*lines, _file(path)])


def _describe_responses(acquisition: str, bank: LanguageBank, path: Path) -> str:
    """A few lines on a bank of responses."""
    n, perturbations, width = bank.positives.shape
    sides = bank.positives.mean(1), bank.negatives.mean(1)  # one response an image
    alone = [100 * ranking_share(*sides, center) for center in (True, False)]
    pairs = [100 * pair_ranking_share(*sides, center) for center in (True, False)]
    return "\n".join(
        [
            _title(acquisition, bank.description["images"]),
            f"  prompt      {bank.description['prompt']['question']}",
            f"  responses   ({n} + {len(bank.negatives)}) images x {perturbations} perturbations, "
            f"width {width}",
            "  separation  pairs ranked rightly (without centring): one left out "
            f"{alone[0]:.1f} % ({alone[1]:.1f} %), "
            f"the pair left out {pairs[0]:.1f} % ({pairs[1]:.1f} %)",
            _file(path),
        ]
    )


def _title(acquisition: str, images: dict) -> str:
    return (
        f"bank for {acquisition} ({images['contrast']} contrast)\n"
        f"  made of     {images['n_slices']} slices of {len(images['subjects'])} subjects, "
        f"{', '.join(images['acquisitions'])}; negatives {images['negatives']} at R in "
        f"{images['accelerations']}"
    )


def _file(path: Path) -> str:
    return f"  file        {path} ({path.stat().st_size / 1e6:.1f} MB)"
