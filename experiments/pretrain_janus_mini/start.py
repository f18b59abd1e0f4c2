"""What so short a training starts from: initial weights, and what of them is trained how.

transformers starts every matrix at a standard deviation of .02 and patches are dominated by their
mean: after 200 steps the local error was still not better predicted than by a constant. Matrices of
unit gain and a whitening patch embedding halve that loss in 200 steps.
"""

from __future__ import annotations

import math

import torch
from degrade import draw_pairs
from janus import to_pixels
from pool import Pool
from torch import nn
from transformers import JanusForConditionalGeneration

FLOOR = 0.02  # in units of the encoder's input: weaker patch components are not amplified further
BATCHES, BATCH = 6, 32


@torch.no_grad()
def unit_gain(model: JanusForConditionalGeneration, generator: torch.Generator) -> None:
    """Draw the matrices of tower, aligner and language model with variance 1 / inputs."""
    parts = ("vision_model.encoder.", "aligner.", "language_model.layers.")
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and any(part in name for part in parts) and "generation" not in name:
            weight.copy_(
                torch.randn(weight.shape, generator=generator) / math.sqrt(weight.shape[1])
            )


@torch.no_grad()
def whiten_patches(
    model: JanusForConditionalGeneration,
    pool: Pool,
    sizes: list[int],
    generator: torch.Generator,
) -> None:
    """Let the patch embedding start as random rotations of whitened training patches.

    With ``C = U diag(v) U^T`` the patches' covariance and m their mean, a patch p is embedded as
    ``Q diag(1 / max(sqrt(v), FLOOR)) U^T (p - m)``; Q is orthogonal, the first one the identity.

    Args:
        model: changed in place.
        pool: training slices.
        sizes: matrix sizes to draw from.
        generator: source of randomness.
    """
    embeddings, config = model.model.vision_model.embeddings, model.config.vision_config
    patch = config.patch_size
    patches = torch.cat(
        [
            to_pixels(draw_pairs(pool, sizes, BATCH, generator).image, config.image_size)[:, 0]
            .unfold(1, patch, patch)
            .unfold(2, patch, patch)
            .reshape(-1, patch * patch)
            for _ in range(BATCHES)
        ]
    )
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    whitening = (vectors / values.clamp_min(0).sqrt().clamp_min(FLOOR)).T
    rows = [whitening]
    while len(rows) * len(whitening) < config.hidden_size:
        turn = torch.linalg.qr(torch.randn(whitening.shape, generator=generator)).Q
        rows.append(turn @ whitening)
    filters = torch.cat(rows)[: config.hidden_size]
    channels = config.num_channels  # all equal: each gets its share
    weight = (filters / channels).reshape(-1, 1, patch, patch).expand(-1, channels, -1, -1)
    embeddings.patch_embedding.weight.copy_(weight)
    embeddings.patch_embedding.bias.copy_(-filters @ mean)


def parameter_groups(
    model: nn.Module, head: nn.Module, weight_decay: float
) -> list[dict[str, list[nn.Parameter] | float]]:
    """Weight decay for matrices only; the image generator is never trained."""
    parameters = [
        weight
        for name, weight in [*model.named_parameters(), *head.named_parameters()]
        if "vqmodel" not in name and "generation_" not in name
    ]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
