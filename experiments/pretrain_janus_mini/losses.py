"""What the tower is trained to say of an image: answers, and pixel by pixel what is wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, pad, smooth_l1_loss, unfold

from mrisem.adaptation.pairs import MOVED, Pairs
from mrisem.adaptation.questions import (
    IGNORE,
    MORE_WORDINGS,
    PROMPTS,
    QUESTIONS,
    STEERING,
    answers_of,
)

N_ANSWERS = [len(PROMPTS[name]["answers"]) for name in QUESTIONS]
ARTEFACTS = ((1,), (2, 3), (4,), (5,), (6,))  # `KINDS` that share a channel of the error maps
ERROR_UNIT = 0.02  # of the image's maximum
LEAST = 0.02  # added to relative errors before their logarithm is taken
WEIGHTS = {"read": 6.0, "error": 1.0, "dense": 3.0, "residual": 0.3}


def make_heads(width: int, patch: int, generator: torch.Generator) -> nn.ModuleDict:
    """Linear heads on tokens of ``width`` features: what the tower learns by, then thrown away."""
    head = nn.ModuleDict(
        {
            "read": nn.Linear(width, sum(N_ANSWERS)),
            "error": nn.Linear(width, 1),
            "dense": nn.Linear(width, len(ARTEFACTS)),
            "residual": nn.Linear(width, patch**2),
        }
    )
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    nn.init.normal_(head["residual"].weight, std=0.02, generator=generator)
    nn.init.constant_(head["error"].bias, -3.0)  # logarithm of a middling error
    return head


def tower_loss(
    head: nn.ModuleDict, tokens: Tensor, level: Tensor, pairs: Pairs, image_size: int
) -> Tensor:
    """Sum of all losses by `WEIGHTS`.

    Args:
        head: see `make_heads`.
        tokens: ``(n, token, feature)``, the tower's output.
        level: ``(n, token, feature)``, the layer off which the signed error is read.
        pairs: the images.
        image_size: Edge of the encoder's input, pixels.
    """
    residual = head["residual"](level)
    target = residual_target(pairs, image_size, round(residual.shape[-1] ** 0.5))
    losses = {
        "read": read_loss(head["read"](tokens.mean(1)), pairs),
        "error": error_loss(head["error"](tokens.mean(1)), pairs),
        "dense": dense_loss(head["dense"](tokens), target, pairs.kind),
        "residual": residual_loss(residual, target, pairs.error),
    }
    return torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()


def read_loss(read: Tensor, pairs: Pairs) -> Tensor:
    """Cross-entropy of all answers, read off ``(n, sum of N_ANSWERS)``; mean over questions.

    Those by which users steer count as often as the language model is asked them; those that no
    image can answer, not at all.
    """
    right = answers_of(pairs)
    n = (right != IGNORE).sum(0)
    losses = [
        cross_entropy(logits, answers, ignore_index=IGNORE, reduction="sum")
        for logits, answers in zip(read.split(N_ANSWERS, 1), right.T, strict=True)
    ]
    often = torch.tensor([1 + MORE_WORDINGS * (name in STEERING) for name in QUESTIONS])
    weights = often * (n > 0)
    return (weights * torch.stack(losses) / n.clamp_min(1)).sum() / weights.sum()


def error_loss(read: Tensor, pairs: Pairs) -> Tensor:
    """Distance of ``(n, 1)`` to the logarithm of the relative error."""
    return smooth_l1_loss(read[:, 0], (pairs.error + LEAST).log())


def residual_target(pairs: Pairs, image_size: int, patch: int) -> Tensor:
    """Cut ``image - truth`` into the encoder's tokens: what should be taken away, pixel by pixel.

    Args:
        pairs: the images.
        image_size: Edge of the encoder's input, pixels; errors are cropped or padded to it, as
            images are.
        patch: edge length of a token, pixels.

    Returns:
        ``(n, token, patch * patch)``, relative to the image's maximum, in units of `ERROR_UNIT`.
    """
    error = (pairs.image - pairs.truth) / pairs.image.amax((-2, -1), keepdim=True) / ERROR_UNIT
    height, width = error.shape[-2:]
    top, left = image_size // 2 - height // 2, image_size // 2 - width // 2
    margins = (left, image_size - width - left, top, image_size - height - top)
    return unfold(pad(error, margins)[:, None], patch, stride=patch).movedim(1, 2)


def residual_loss(residual: Tensor, target: Tensor, error: Tensor) -> Tensor:
    """One minus the cosine with the signed error, however slight it is, and the distance to it."""
    found, wanted = residual.flatten(1), target.flatten(1)
    turned = ((1 - cosine_similarity(found, wanted)) * (error > MOVED)).mean()
    return turned + smooth_l1_loss(found, wanted)


def dense_loss(dense: Tensor, target: Tensor, kind: Tensor) -> Tensor:
    """Distance of ``(n, token, artefact)`` to the size of the local errors.

    The size, ``log(1 + rms)`` over a token of ``target``, stands in the channel of the image's
    artefact: aliasing, blur, noise, ghosts, errors of reconstructions; the others are zero.
    """
    size = torch.log1p(target.square().mean(-1).sqrt())
    channels = torch.stack([sum(kind == code for code in codes) for codes in ARTEFACTS], -1)
    return len(ARTEFACTS) * smooth_l1_loss(dense, size[..., None] * channels[:, None, :])
