"""Answers on held-out subjects, over all wordings."""

from __future__ import annotations

from collections import defaultdict

import torch
from material import draw_material
from tqdm import tqdm
from transformers import JanusForConditionalGeneration

from mrisem.adaptation.degrade import draw_pairs, draw_severity
from mrisem.adaptation.model import answer, encode
from mrisem.adaptation.pairs import KINDS, Pairs
from mrisem.adaptation.pool import Pool
from mrisem.adaptation.questions import (
    IGNORE,
    PROMPTS,
    QUESTIONS,
    STEERING,
    Questions,
    answers_of,
)

FIRST_SEED, BATCH = 9_000_000, 16  # of the held-out degradations
DAMAGE = ("quality", "artefact", "kind")  # questions whose answers are counted by kind of image

Score = dict[str, float]


def evaluate(
    model: JanusForConditionalGeneration,
    questions: Questions,
    pool: Pool,
    material: Pairs,
    sizes: list[int],
    n: int,
) -> dict[str, Score]:
    """Ask held-out images all wordings of the questions that they can answer.

    Args:
        model: trained.
        questions: Token ids that `questions.tokenise` returns.
        pool: slices to degrade.
        material: reconstructions by real methods.
        sizes: matrix sizes at which slices are degraded.
        n: number of degraded slices, and of reconstructions.

    Returns:
        ``accuracy`` and ``n`` (image x wording) of each question, and of parts of it.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    for seed in tqdm(range(FIRST_SEED, FIRST_SEED + n, BATCH), desc="held-out subjects"):
        generator = torch.Generator().manual_seed(seed)
        severity = draw_severity(BATCH, generator)
        for pairs in (
            draw_pairs(pool, sizes, severity, generator),
            draw_material(material, severity, generator),
        ):
            ask(model, questions, pairs, right)
    return {
        group: {"accuracy": round(sum(found) / len(found), 4), "n": len(found)}
        for group, found in sorted(right.items())
    }


@torch.no_grad()
def ask(
    model: JanusForConditionalGeneration,
    questions: Questions,
    pairs: Pairs,
    right: dict[str, list[bool]],
) -> None:
    """Add whether each answer is right to the groups that it belongs to.

    The answer is the most likely token of the whole vocabulary: what greedy generation gives first.
    """
    truth, (tokens, _) = answers_of(pairs), encode(model, pairs.image)
    for which, name in enumerate(QUESTIONS):
        asked = (truth[:, which] != IGNORE).nonzero().flatten().tolist()
        for prompt in questions.prompts[which]:
            ids = torch.tensor(prompt).expand(len(tokens), -1)
            last = torch.full((len(tokens), 1), len(prompt) - 1)
            said = answer(model, tokens, ids, last)[:, 0].argmax(-1).tolist()
            for image in asked:
                wanted = int(truth[image, which])
                groups = [name]
                if name in DAMAGE:
                    groups.append(f"{name}, {KINDS[pairs.kind[image]]}")
                if name in STEERING:
                    groups.append(f"{name}, right: {PROMPTS[name]['answers'][wanted]}")
                for group in groups:
                    right[group].append([said[image]] == questions.answers[which][wanted])
