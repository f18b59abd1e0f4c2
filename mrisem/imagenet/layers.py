"""Convolutional layers of VGG16 and AlexNet, block by block, with frozen weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from mrisem.errors import InputError

# What torchvision's weights expect: (value in [0, 1] - mean) / std, per colour channel.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """Blocks of a network: their ends and widths.

    Args:
        block_ends: position of each block's last ReLU in torchvision's ``features``.
        widths: number of channels of each block's output.
        smallest_image: smallest height and width, in pixels, from which all blocks have an output.
    """

    block_ends: tuple[int, ...]
    widths: tuple[int, ...]
    smallest_image: int


ARCHITECTURES = {
    # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 (Simonyan & Zisserman 2015, configuration D)
    "vgg16": Architecture((3, 8, 15, 22, 29), (64, 128, 256, 512, 512), 16),
    # relu1 .. relu5 (Krizhevsky 2014, the one-column network)
    "alexnet": Architecture((1, 4, 7, 9, 11), (64, 192, 384, 256, 256), 31),
}


class ConvolutionalLayers(nn.Module):
    """Convolutions, ReLUs and poolings of a network without its classifier; never trained.

    Args:
        network: ``vgg16`` or ``alexnet``.
        weights: weights and biases by their names in torchvision's ``features``, such as
            ``0.weight`` (`mrisem.imagenet.weights`); of a pruned network they have fewer channels.
        n_blocks: number of blocks that are kept, counted from the first.
    """

    def __init__(self, network: str, weights: Mapping[str, Tensor], n_blocks: int = 5) -> None:
        super().__init__()
        self.network, self.architecture = network, architecture(network)
        self.block_ends = [end + 1 for end in self.architecture.block_ends[:n_blocks]]
        self.features = _empty_features(network)[: self.block_ends[-1]]
        for name, layer in self.features.named_children():
            if isinstance(layer, nn.Conv2d):
                # the layers have no memory of their own (device "meta") until now
                layer.weight, layer.bias = (
                    nn.Parameter(weights[f"{name}.{part}"], requires_grad=False)
                    for part in ("weight", "bias")
                )
                layer.out_channels, layer.in_channels = layer.weight.shape[:2]
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ConvolutionalLayers:
        """Stay in evaluation mode, also within a module that is trained."""
        return super().train(False)

    def blocks(self) -> list[nn.Sequential]:
        """Return the blocks; a block with pooling begins with it."""
        starts = [0, *self.block_ends[:-1]]
        ranges = zip(starts, self.block_ends, strict=True)
        return [self.features[start:end] for start, end in ranges]

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map pixels ``(n, 3, y, x)`` to each block's last activation ``(n, channel, y', x')``.

        Raises:
            InputError: when the image is too small for the poolings.
        """
        smallest = self.architecture.smallest_image
        if min(pixels.shape[-2:]) < smallest:
            raise InputError(
                f"images must be at least {smallest} x {smallest} pixels for {self.network}, got "
                f"{tuple(pixels.shape[-2:])}; use larger images or another encoder"
            )
        activations = []
        for block in self.blocks():
            pixels = block(pixels)
            activations.append(pixels)
        return tuple(activations)


def architecture(network: str) -> Architecture:
    """Look up a network in `ARCHITECTURES`; raise InputError for any other name."""
    if network not in ARCHITECTURES:
        raise InputError(
            f"network must be one of {', '.join(sorted(ARCHITECTURES))}, got {network!r}; "
            "set encoder.network to one of them"
        )
    return ARCHITECTURES[network]


def layer_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight and bias by name, in the order of the convolutions.

    >>> layer_shapes("alexnet")["0.weight"]
    (64, 3, 11, 11)
    """
    architecture(network)
    return {name: tuple(w.shape) for name, w in _empty_features(network).state_dict().items()}


def _empty_features(network: str) -> nn.Sequential:
    with torch.device("meta"):  # takes no memory, draws no random numbers: weights come later
        return getattr(torchvision.models, network)(weights=None).features
