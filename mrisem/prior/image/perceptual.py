"""VGG16 and AlexNet as encoders: feature maps, averaged to a grid of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.imagenet.layers import MEAN, STD, ConvolutionalLayers, architecture
from mrisem.imagenet.weights import random_weights, read_weights
from mrisem.prior.image.encoder import FrozenEncoder
from mrisem.prior.image.levels import Dtype, check_levels, map_tokens, torch_dtype
from mrisem.prior.image.preparation import Preparation


class BlockTokens(nn.Module):
    """Tokens of the last activations of some blocks.

    Args:
        layers: convolutional layers of the network.
        levels: blocks, counted from 1.
        grid: number of tokens along y and x.
    """

    def __init__(self, layers: ConvolutionalLayers, levels: tuple[int, ...], grid: int) -> None:
        super().__init__()
        self.layers, self.levels, self.grid = layers, levels, grid

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map pixels ``(n, 3, y, x)`` to ``(n, token, feature)`` for each level."""
        maps = self.layers(pixels)
        return tuple(map_tokens(maps[level - 1], self.grid) for level in self.levels)


def load_perceptual(
    network: str,
    levels: Sequence[int] = (4,),
    grid: Annotated[int, Ge(1)] = 24,
    weights: str | Path | None = None,
    random_seed: int | None = None,
    dtype: Dtype = "auto",
) -> FrozenEncoder:
    """Load VGG16 or AlexNet as an encoder, up to the deepest level; images keep their size.

    Args:
        network: ``vgg16`` (levels 1 to 5: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3) or
            ``alexnet`` (relu1 to relu5).
        levels: blocks whose last activations are compared.
        grid: number of tokens along y and x (see `map_tokens`).
        weights: file with a state dict of torchvision's network; None: the weights on this machine
            (`mrisem.imagenet.weights.read_weights`). Nothing is downloaded.
        random_seed: seed of random weights, a control for the effect of training; None: trained
            weights.
        dtype: dtype of weights and embeddings; ``auto``: bfloat16 if torch finds a CUDA device,
            else float32.

    Returns:
        encoder on the CPU.

    Raises:
        InputError: when the network, the levels or the weights cannot be used.
    """
    chosen = tuple(levels)
    check_levels(chosen, len(architecture(network).widths), network)
    if weights is not None and random_seed is not None:
        raise InputError(
            f"weights are either read or random, got encoder.weights={weights} and "
            f"encoder.random_seed={random_seed}; set one of them to null"
        )
    if random_seed is None:
        values = read_weights(network, weights)
    else:
        values = random_weights(network, random_seed)
    # layers beyond the deepest level would be computed for nothing
    layers = ConvolutionalLayers(network, values, max(levels)).to(torch_dtype(dtype))
    return freeze_layers(layers, chosen, grid)


def freeze_layers(layers: ConvolutionalLayers, levels: tuple[int, ...], grid: int) -> FrozenEncoder:
    """Make an encoder of convolutional layers.

    Args:
        layers: layers of the whole network, or of a pruned one.
        levels: blocks whose last activations are compared.
        grid: number of tokens along y and x.
    """
    widths = layers.architecture.widths
    return FrozenEncoder(
        BlockTokens(layers, levels, grid),
        Preparation(None, 3, (MEAN, STD)),  # no resizing: convolutions take images of any size
        levels,
        tuple(widths[level - 1] for level in levels),
        grid**2,
        (layers.network, levels, grid),
    )
