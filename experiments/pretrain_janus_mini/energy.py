"""A local energy whose gradient mends images: what the tower's first layer computes.

``E(x) = sum_t sum_k a_k (gelu(b_k + f_k . q_t) + gelu(b_k - f_k . q_t))`` over whitened patches
``q_t`` of an image: a field of experts (Roth and Black 2005) on the tokens' grid, in the form of
a transformer layer's MLP. It is even and knows no patch mean: flat patches are left alone. It is
trained so that its gradient points along the error, at images and along its own descent: an image
that it has already made sharp, or too sharp, is one that it has to mend, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, gelu
from tqdm import tqdm
from transformers import JanusForConditionalGeneration

from mrisem.adaptation.pairs import MOVED, Pairs

FLOOR = 0.02  # in units of the encoder's input: weaker patch components are not amplified further
LARGE = 100.0  # against whitened patches, whose strongest edges are some tens
PLACE, SPREAD = 2.0, 4.0  # standard deviations of the place's code and of the energy; a patch's: 1


@dataclass(frozen=True)
class Whitening:
    """``q = W (p - m)`` of patches ``(..., pixel)`` in the encoder's range [-1, 1].

    Args:
        matrix: ``(pixel, pixel)``, W; the first row is the patch's mean, the others, which do not
            see it, are the principal axes of what is left, weakest first.
        mean: ``(pixel,)``, m: all alike.
    """

    matrix: Tensor
    mean: Tensor

    def __call__(self, patches: Tensor) -> Tensor:
        """``(..., pixel)`` -> ``(..., pixel)``."""
        return (patches - self.mean) @ self.matrix.T


def fit_whitening(patches: Tensor) -> Whitening:
    """Whiten patches ``(n, pixel)``; axes weaker than `FLOOR` stay weak."""
    n_pixels = patches.shape[1]
    level = patches.mean(1, keepdim=True)
    rest = patches - level
    values, vectors = torch.linalg.eigh(rest.T @ rest / len(rest))
    matrix = (vectors / values.clamp_min(0).sqrt().clamp_min(FLOOR)).T
    matrix = matrix - matrix.mean(1, keepdim=True)  # the weakest axis was the mean: now nothing
    matrix[0] = 1 / (n_pixels * level.std().clamp_min(FLOOR))
    return Whitening(matrix, level.mean().expand(n_pixels).clone())


class LocalEnergy(nn.Module):
    """The energy of patches.

    Args:
        whitening: Whitening of the patches.
        n_experts: K, each a pair of an MLP's units.
        generator: source of the filters.
    """

    def __init__(self, whitening: Whitening, n_experts: int, generator: torch.Generator) -> None:
        super().__init__()
        n = len(whitening.mean) - 1
        self.whitening = whitening
        self.filters = nn.Parameter(torch.randn(n, n_experts, generator=generator) / math.sqrt(n))
        self.biases = nn.Parameter(torch.zeros(n_experts))
        self.weights = nn.Parameter(0.01 * torch.randn(n_experts, generator=generator))

    def forward(self, patches: Tensor) -> Tensor:
        """``(..., pixel)`` -> ``(...)`` energies."""
        u = self._responses(patches)
        return (gelu(self.biases + u) + gelu(self.biases - u)) @ self.weights

    def gradient(self, patches: Tensor) -> Tensor:
        """``(..., pixel)`` -> ``(..., pixel)``, written out: differentiating it is cheap."""
        u = self._responses(patches)
        slope = gelu_slope(self.biases + u) - gelu_slope(self.biases - u)
        return (slope * self.weights) @ self.filters.T @ self.whitening.matrix[1:]

    def units(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the MLP's filters ``(pixel, 2 K)`` of q, biases and weights, each ``(2 K,)``."""
        filters = torch.cat([self.filters, -self.filters], 1)
        blind = torch.zeros(1, filters.shape[1])
        return torch.cat([blind, filters]), self.biases.repeat(2), self.weights.repeat(2)

    def _responses(self, patches: Tensor) -> Tensor:
        return self.whitening(patches)[..., 1:] @ self.filters


def gelu_slope(u: Tensor) -> Tensor:
    """Derivative of ``u Phi(u)``."""
    density = torch.exp(-u.square() / 2) / math.sqrt(2 * math.pi)
    return (1 + torch.erf(u / math.sqrt(2))) / 2 + u * density


def cut(pairs: Pairs, patch: int, shift: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images and their errors as patches of a grid that is shifted, in the encoder's range.

    Args:
        pairs: Images of a matrix size that ``patch`` divides.
        patch: edge length, pixels.
        shift: Cyclic shift of the images.

    Returns:
        both ``(n, token, pixel)``.
    """
    peak = pairs.image.amax((-2, -1), keepdim=True)
    return tuple(
        x.roll(shift, (1, 2))
        .unfold(1, patch, patch)
        .unfold(2, patch, patch)
        .flatten(3)
        .flatten(1, 2)
        for x in (2 * pairs.image / peak - 1, 2 * (pairs.image - pairs.truth) / peak)
    )


def alignment_of(energy: LocalEnergy, patches: Tensor, error: Tensor) -> Tensor:
    """Cosine of gradient and error, ``(n,)``, over all patches of each image."""
    return cosine_similarity(energy.gradient(patches).flatten(1), error.flatten(1))


@torch.no_grad()
def descend(
    energy: LocalEnergy, patches: Tensor, error: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Go down the energy from each image, up to one and a half times as far as its truth lies."""
    n_steps = int(torch.randint(1, 7, (), generator=generator))
    far = (
        1.5
        * torch.rand(len(patches), 1, 1, generator=generator)
        * error.norm(dim=(1, 2))[:, None, None]
    )
    for _ in range(n_steps):
        gradient = energy.gradient(patches)
        length = gradient.norm(dim=(1, 2)).clamp_min(1e-9)[:, None, None]
        step = far / n_steps * gradient / length
        patches, error = patches - step, error - step
    return patches, error


def train_energy(
    config: dict[str, Any],
    patch: int,
    draw: Callable[[int, torch.Generator], Pairs],
    generator: torch.Generator,
) -> LocalEnergy:
    """Train with Adam; the learning rate falls to zero over the second half.

    Args:
        config: ``experts``, ``steps``, ``batch``, ``learning_rate``, ``descend_from`` (step).
        patch: edge length of a token, pixels.
        draw: number of images, generator -> pairs whose matrix size ``patch`` divides.
        generator: source of randomness.

    Returns:
        the energy, of unit standard deviation over the last batch's patches.
    """
    n, steps = config["batch"], config["steps"]
    first = torch.cat([cut(draw(n, generator), patch, (0, 0))[0].flatten(0, 1) for _ in range(6)])
    energy = LocalEnergy(fit_whitening(first), config["experts"], generator)
    optimizer = torch.optim.Adam(energy.parameters(), lr=config["learning_rate"])
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50, 2 * (1 - step / steps))
    )
    with tqdm(range(steps), desc="local energy") as bar:
        for step in bar:
            pairs = draw(n, generator)
            shift = torch.randint(patch, (2,), generator=generator)
            patches, error = cut(pairs, patch, tuple(shift.tolist()))
            if step >= config["descend_from"] and step % 3 == 2:
                patches, error = descend(energy, patches, error, generator)
            cosine = alignment_of(energy, patches, error)[pairs.error > MOVED]
            optimizer.zero_grad()
            (1 - cosine).mean().backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(cosine=round(cosine.mean().item(), 3))
    with torch.no_grad():
        energy.weights /= energy(patches).std()
    return energy.requires_grad_(False)


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
        energy: Energy of its patches, of unit standard deviation.
        generator: source of the places' code.
    """
    tower, config = model.model.vision_model, model.config.vision_config
    width, n_pixels = config.hidden_size, len(energy.whitening.mean)
    layer, n_large = tower.encoder.layers[0], width // 4
    filters, bias = torch.zeros(width, n_pixels), torch.zeros(width)
    filters[:n_pixels] = energy.whitening.matrix
    bias[:n_pixels] = -energy.whitening.matrix @ energy.whitening.mean
    bias[-n_large:] = LARGE * torch.tensor([1.0, -1.0]).repeat(n_large // 2)
    embedding = tower.embeddings.patch_embedding
    # the channels are all equal: each gets its share
    shared = (filters / config.num_channels).reshape(width, 1, *embedding.weight.shape[2:])
    embedding.weight.copy_(shared.expand_as(embedding.weight))
    embedding.bias.copy_(bias)
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
