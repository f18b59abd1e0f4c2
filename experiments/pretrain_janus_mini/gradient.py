"""The prior itself as a training loss: what its gradient must be for it to help.

A batch is its own bank: other images' truths are the positives, other images the negatives, as the
auxiliary subjects are where the prior is used (`mrisem.prior.semantic`).
"""

from __future__ import annotations

import math

import torch
from janus import Window
from pairs import LOW
from torch import Tensor
from torch.nn.functional import normalize, softplus

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


def contrast_loss(odds: Tensor, error: Tensor) -> Tensor:
    """Truths should look like truths, images above `LOW` like images: logistic loss of the odds."""
    n = len(error)
    clear = (error > LOW).float()
    wrong = softplus(odds[n:]).mean() + (clear * softplus(-odds[:n])).sum() / clear.sum()
    return wrong / 2


def alignment(
    loss: Tensor, image: Tensor, truth: Tensor, error: Tensor, area: tuple[slice, slice]
) -> tuple[Tensor, Tensor]:
    """Cosine between the prior's gradient at each image and the image's error.

    A step against the gradient repairs an image only as far as the two point the same way.

    Args:
        loss: ``(n,)`` of the images.
        image: ``(n, y, x)``, a leaf of the graph.
        truth: ``(n, y, x)``.
        error: ``(n,)`` relative.
        area: rows and columns that were encoded.

    Returns:
        ``(k,)`` cosines of the images above `MOVED`, and which they are, ``(n,)`` bool.
    """
    (gradient,) = torch.autograd.grad(loss.sum(), image, create_graph=True)
    moved = error > MOVED
    rows, columns = area
    g = gradient[moved][:, rows, columns].flatten(1)
    e = (image.detach() - truth)[moved][:, rows, columns].flatten(1)
    return torch.nn.functional.cosine_similarity(g, e, dim=1), moved


def attack(image: Tensor, gradient: Tensor, radius: float) -> Tensor:
    """Go against the prior's gradient by ``radius`` of the maximum: an over-optimised image."""
    peak = image.amax((-2, -1), keepdim=True)
    return (image - radius * peak * gradient.sign()).clamp_min(0).detach()


def area_of(window: Window, patch: int, image_size: int, shape: torch.Size) -> tuple[slice, slice]:
    """Pixels of images of ``shape`` that a window of the encoder's grid covers."""
    areas = []
    for first, length in ((window.top, shape[-2]), (window.left, shape[-1])):
        shift = image_size // 2 - length // 2  # where the image begins in the encoder's input
        start = first * patch - shift
        areas.append(slice(max(0, start), max(0, min(length, start + window.side * patch))))
    return areas[0], areas[1]
