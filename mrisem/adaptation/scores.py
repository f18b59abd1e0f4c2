"""What a model answers, and how far it tells good from bad images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from mrisem.adaptation.model import Adaptable, AskedImages
from mrisem.adaptation.questions import IGNORE
from mrisem.prior.image.building import build_bank
from mrisem.prior.image.encoder import Encoder
from mrisem.prior.language.bank import Perturbation, build_language_bank, ranking_shares
from mrisem.prior.language.model import ResponseEncoder
from mrisem.prior.language.prompts import Prompt

Score = dict[str, float]


@torch.no_grad()
def score(base: Adaptable, batches: Iterable[AskedImages]) -> dict[str, Score]:
    """Count right answers: those that greedy decoding would give, word for word to their end.

    Returns:
        ``all`` and kind of question -> ``accuracy``, mean ``log_likelihood`` of an answer, ``n``.
    """
    entries: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    base.model.eval()
    for asked in batches:
        logits, sequences = base.logits(asked).cpu(), asked.sequences
        labels, turns = sequences.labels, sequences.turns.gather(1, sequences.positions)
        right = logits.argmax(-1) == labels
        likelihood = logits.log_softmax(-1).gather(-1, labels.clamp_min(0)[..., None])[..., 0]
        for row, names in enumerate(sequences.names):
            for turn, name in enumerate(names, start=1):
                is_answer = (turns[row] == turn) & (labels[row] != IGNORE)
                entry = bool(right[row, is_answer].all()), float(likelihood[row, is_answer].sum())
                entries["all"].append(entry)
                entries[name].append(entry)
    return {name: _mean(of_kind) for name, of_kind in entries.items()}


def _mean(entries: Sequence[tuple[bool, float]]) -> Score:
    n = len(entries)
    right, likelihood = (sum(values) / n for values in zip(*entries, strict=True))
    return {"accuracy": right, "log_likelihood": likelihood, "n": n}


def image_separation(
    encoder: Encoder, images: Any, components: Sequence[int | None], device: torch.device
) -> Score:
    """Share of slices nearest to their own side at each level, as `mrisem bank` prints it.

    Args:
        encoder: vision tower, on the device.
        images: positive and negative of each slice.
        components: number of PCA components of each level.
        device: device of the encoder.
    """
    bank = build_bank(encoder, images, components, {}, device=device)
    return {f"level {level}": part.separation() for level, part in bank.levels.items()}


def language_separation(
    encoder: ResponseEncoder, images: Any, prompt: Prompt, device: torch.device
) -> Score:
    """Share of pairs of slices whose better one has the smaller loss, the pair left out."""
    still = Perturbation(n=1, sigma=0.0)
    bank = build_language_bank(encoder.to(device), images, prompt, still, {}, device=device)
    sides = bank.positives.mean(1), bank.negatives.mean(1)
    return {"responses": ranking_shares(*sides, center=True)[1]}
