"""The prior's gradient at images whose error is known: does it mend them?

A batch is its own bank: other images' truths are the positives, other images the negatives, as the
auxiliary subjects are where the prior is used (`mrisem.prior.image.prior`).
"""

from __future__ import annotations

import math

import torch
from pairs import LOW
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize, softplus

TEMPERATURE = 0.07
MOVED = 0.01  # relative error above which an image's error has a direction worth learning


def batch_prior(
    levels: dict[int, Tensor], weights: dict[int, float], error: Tensor
) -> tuple[Tensor, Tensor]:
    """Reckon how much likelier each image is a negative than a positive.

    Args:
        levels: level -> ``(2 n, token, feature)``: images, then their truths.
        weights: of the levels in the loss.
        error: ``(n,)``; only images above `LOW` are negatives.

    Returns:
        log-odds, averaged over levels by weight, and their InfoNCE loss, each ``(2 n,)``.
    """
    n = len(error)
    negative = error > LOW
    others = ~torch.eye(n, dtype=torch.bool)
    odds, losses = [], []
    for level, hidden in levels.items():
        hidden = hidden.float()
        bank = torch.cat([hidden[n:], hidden[:n][negative]])
        mean = bank.detach().mean((0, 1))
        z = normalize(hidden - mean, dim=-1)
        # the bank stands still, as where the prior is used
        logits = torch.einsum("itf,jtf->ij", z, z.detach()) / (z.shape[1] * TEMPERATURE)
        to_truths = logits[:, n:].masked_fill(~others.repeat(2, 1), -math.inf)
        to_images = logits[:, :n].masked_fill(~(others & negative).repeat(2, 1), -math.inf)
        odd = to_images.logsumexp(1) - to_truths.logsumexp(1)
        odds.append(weights[level] * odd)
        losses.append(weights[level] * softplus(odd))
    total = sum(weights.values())
    return torch.stack(odds).sum(0) / total, torch.stack(losses).sum(0)


def principal(hidden: Tensor, n_components: int) -> Tensor:
    """Keep the strongest principal components of tokens ``(n, token, feature)``, as a bank does."""
    tokens = hidden.detach().flatten(0, 1)
    mean = tokens.mean(0)
    _, vectors = torch.linalg.eigh((tokens - mean).T @ (tokens - mean))
    return (hidden - mean) @ vectors[:, -n_components:]


def alignment(loss: Tensor, image: Tensor, truth: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine between the prior's gradient at each image and the image's error.

    A step against the gradient repairs an image only as far as the two point the same way.

    Args:
        loss: ``(n,)`` of the images.
        image: ``(n, y, x)``, a leaf of the graph.
        truth: ``(n, y, x)``.
        error: ``(n,)`` relative.

    Returns:
        ``(k,)`` cosines of the images above `MOVED`, and which they are, ``(n,)`` bool.
    """
    (gradient,) = torch.autograd.grad(loss.sum(), image)
    moved = error > MOVED
    g, e = gradient[moved].flatten(1), (image.detach() - truth)[moved].flatten(1)
    return cosine_similarity(g, e, dim=1), moved
