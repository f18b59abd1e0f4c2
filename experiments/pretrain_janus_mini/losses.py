"""What the model is trained to say of an image: in words, as numbers, and pixel by pixel."""

from __future__ import annotations

import torch
from gradient import MOVED
from pairs import ARTEFACTS, Pairs, by_artefact, dense_target, residual_target
from questions import IGNORE, MORE_WORDINGS, PROMPTS, QUESTIONS, STEERING, answers_of
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, smooth_l1_loss

N_ANSWERS = [len(PROMPTS[name]["answers"]) for name in QUESTIONS]
LEAST = 0.02  # added to relative errors before their logarithm is taken


def make_heads(width: int, patch: int, generator: torch.Generator) -> nn.ModuleDict:
    """Linear heads on tokens of ``width`` features: what the tower learns by, then thrown away."""
    head = nn.ModuleDict(
        {
            "dense": nn.Linear(width, len(ARTEFACTS)),
            "residual": nn.Linear(width, patch**2),
            "read": nn.Linear(width, sum(N_ANSWERS)),
            "error": nn.Linear(width, 1),
        }
    )
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    nn.init.normal_(head["residual"].weight, std=0.02, generator=generator)
    nn.init.constant_(head["error"].bias, -3.0)  # logarithm of a middling error
    return head


def word_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the answers and their ends."""
    labels = labels.flatten().to(logits.device)
    return cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORE)


def read_loss(read: Tensor, pairs: Pairs) -> Tensor:
    """Cross-entropy of all answers, read off ``(n, sum of N_ANSWERS)``; mean over questions.

    Those by which users steer count as often as the language model is asked them; those that no
    image can answer, not at all.
    """
    right = answers_of(pairs).to(read.device)
    n = (right != IGNORE).sum(0)
    losses = [
        cross_entropy(logits, answers, ignore_index=IGNORE, reduction="sum")
        for logits, answers in zip(read.split(N_ANSWERS, 1), right.T, strict=True)
    ]
    often = torch.tensor([1 + MORE_WORDINGS * (name in STEERING) for name in QUESTIONS])
    weights = often.to(read.device) * (n > 0)
    return (weights * torch.stack(losses) / n.clamp_min(1)).sum() / weights.sum()


def error_loss(read: Tensor, pairs: Pairs) -> Tensor:
    """Distance of ``(n, 1)`` to the logarithm of the relative error."""
    return smooth_l1_loss(read[:, 0], (pairs.error + LEAST).log().to(read.device))


def dense_loss(dense: Tensor, pairs: Pairs, image_size: int, patch: int) -> Tensor:
    """Distance of ``(n, token, artefact)`` to the size of the local errors."""
    target = by_artefact(dense_target(pairs.local, image_size, patch), pairs.kind)
    return len(ARTEFACTS) * smooth_l1_loss(dense, target.to(dense.device))


def residual_loss(residual: Tensor, pairs: Pairs, image_size: int, patch: int) -> Tensor:
    """One minus the cosine with the signed error, however slight it is, and the distance to it."""
    found = residual.flatten(1)
    target = residual_target(pairs, image_size, patch).flatten(1).to(found.device)
    moved = (pairs.error > MOVED).to(found.device)
    turned = ((1 - cosine_similarity(found, target)) * moved).sum() / len(pairs)
    return turned + smooth_l1_loss(found, target)
