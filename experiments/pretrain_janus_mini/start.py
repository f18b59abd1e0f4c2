"""What so short a training starts from: initial weights, and what of them is trained how.

transformers starts every matrix at a standard deviation of .02 and patches are dominated by their
mean: after 200 steps the local error was still not better predicted than by a constant. Matrices of
unit gain and a whitening patch embedding halve that loss in 200 steps.
"""

from __future__ import annotations

import math

import torch
from energy import LocalEnergy, Whitening
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration

LARGE = 100.0  # against whitened patches, whose strongest edges are some tens
PLACE, SPREAD = 2.0, 4.0  # standard deviations of the place's code and of the energy; a patch's: 1


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
    model: JanusForConditionalGeneration, whitening: Whitening, generator: torch.Generator
) -> None:
    """Let the patch embedding start as random rotations of whitened patches.

    Args:
        model: changed in place.
        whitening: of its patches.
        generator: source of the rotations; the first one is the identity.
    """
    rows, width = [whitening.matrix], model.config.vision_config.hidden_size
    while len(rows) * len(whitening.matrix) < width:
        turn = torch.linalg.qr(torch.randn(whitening.matrix.shape, generator=generator)).Q
        rows.append(turn @ whitening.matrix)
    filters = torch.cat(rows)[:width]
    _embed(model, filters, -filters @ whitening.mean)


def _embed(model: JanusForConditionalGeneration, filters: Tensor, bias: Tensor) -> None:
    """Set the patch embedding; the channels are all equal: each gets its share."""
    embedding, patch = (
        model.model.vision_model.embeddings.patch_embedding,
        model.config.vision_config,
    )
    shape = (-1, 1, patch.patch_size, patch.patch_size)
    weight = (filters / patch.num_channels).reshape(shape).expand(-1, patch.num_channels, -1, -1)
    embedding.weight.copy_(weight)
    embedding.bias.copy_(bias)


@torch.no_grad()
def put_into_first_layer(
    model: JanusForConditionalGeneration, energy: LocalEnergy, generator: torch.Generator
) -> None:
    """Make the tower's first layer compute a local energy, exactly but for its norm's slight bend.

    Of the width, the first features are the whitened patch, one is the energy, a quarter stands at
    plus or minus `LARGE`, so that the layer's norm divides by a constant, and the rest are a random
    code of the token's place. The layer's attention is silent, its MLP writes the energy and takes
    the constants away again. `PLACE` and `SPREAD` make energy and place the strongest principal
    components: a bank that keeps just these drops the patch, and a token's similarity to an entry
    is that of their energies at the same place.

    Args:
        model: changed in place.
        energy: of its patches, of unit standard deviation.
        generator: source of the places' code.
    """
    tower, config = model.model.vision_model, model.config.vision_config
    width, n_pixels = config.hidden_size, len(energy.whitening.mean)
    layer, n_large = tower.encoder.layers[0], width // 4
    filters, bias = torch.zeros(width, n_pixels), torch.zeros(width)
    filters[:n_pixels] = energy.whitening.matrix
    bias[:n_pixels] = -energy.whitening.matrix @ energy.whitening.mean
    bias[-n_large:] = LARGE * torch.tensor([1.0, -1.0]).repeat(n_large // 2)
    _embed(model, filters, bias)
    place = torch.zeros_like(tower.embeddings.position_embedding.weight)
    code = torch.randn(len(place), width - n_large - n_pixels - 1, generator=generator)
    place[:, n_pixels + 1 : -n_large] = PLACE * (code - code.mean(1, keepdim=True))
    tower.embeddings.position_embedding.weight.copy_(place)
    layer.self_attn.projection_layer.weight.zero_()
    layer.self_attn.projection_layer.bias.zero_()
    layer.layer_norm2.weight.fill_(1.0)
    layer.layer_norm2.bias.zero_()
    # the norm divides by LARGE / 2, and subtracts the patch's mean over the whole width
    through = torch.eye(n_pixels) - torch.full((n_pixels, n_pixels), 1 / width)
    units, biases, weights = energy.units()
    inner = torch.linalg.solve(through, units) * LARGE * math.sqrt(n_large / width)
    fc1, fc2 = layer.mlp.fc1, layer.mlp.fc2
    for parameter in (fc1.weight, fc1.bias, fc2.weight, fc2.bias):
        parameter.zero_()
    fc1.weight[: len(biases), :n_pixels] = inner.T
    fc1.bias[: len(biases)] = biases
    fc2.weight[n_pixels, : len(biases)] = SPREAD * weights
    fc2.bias[-n_large:] = -bias[-n_large:]


def first_layer(model: JanusForConditionalGeneration) -> list[nn.Parameter]:
    """Return what `put_into_first_layer` sets: embeddings and first layer."""
    tower = model.model.vision_model
    return [*tower.embeddings.parameters(), *tower.encoder.layers[0].parameters()]


def parameter_groups(
    model: nn.Module, head: nn.Module, weight_decay: float
) -> list[dict[str, list[nn.Parameter] | float]]:
    """Weight decay for matrices only; what is frozen and the image generator are left out."""
    parameters = [
        weight
        for name, weight in [*model.named_parameters(), *head.named_parameters()]
        if weight.requires_grad and "vqmodel" not in name and "generation_" not in name
    ]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
