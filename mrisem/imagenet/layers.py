"""The convolutional layers of VGG16 and AlexNet, block by block, with frozen weights."""

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
    """Where the blocks of a network end.

    Args:
        block_ends: Position of each block's last ReLU in torchvision's ``features``.
        widths: Number of channels of each block's output.
        smallest_image: Smallest height and width in pixels that all blocks can take.
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
    """Convolutions, ReLUs and poolings of a network, without its classifier. Never trained.

    Args:
        network: ``vgg16`` or ``alexnet``.
        weights: Weights and biases by their name within torchvision's ``features``, such as
            ``0.weight`` (`mrisem.imagenet.weights`).
        n_blocks: Number of blocks that are kept, from the first.
    """

    def __init__(self, network: str, weights: Mapping[str, Tensor], n_blocks: int = 5) -> None:
        super().__init__()
        self.network, self.architecture = network, architecture(network)
        self.block_ends = [end + 1 for end in self.architecture.block_ends[:n_blocks]]
        self.features = _empty_features(network)[: self.block_ends[-1]]
        kept = {name: weights[name] for name in self.features.state_dict()}
        self.features.load_state_dict(kept, assign=True)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ConvolutionalLayers:
        """Stay in evaluation mode, whatever surrounds the layers."""
        return super().train(False)

    def blocks(self) -> list[nn.Sequential]:
        """Return the blocks; each one that pools does so in its first layer."""
        starts = [0, *self.block_ends[:-1]]
        ranges = zip(starts, self.block_ends, strict=True)
        return [self.features[start:end] for start, end in ranges]

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``(n, 3, y, x)`` pixels -> last activation ``(n, channel, y', x')`` of each block.

        Raises:
            InputError: when the image is too small for the poolings.
        """
        smallest = self.architecture.smallest_image
        if min(pixels.shape[-2:]) < smallest:
            raise InputError(
                f"images must be at least {smallest} x {smallest} pixels for {self.network}, got "
                f"{tuple(pixels.shape[-2:])}; use another encoder"
            )
        activations = []
        for block in self.blocks():
            pixels = block(pixels)
            activations.append(pixels)
        return tuple(activations)


def architecture(network: str) -> Architecture:
    """Look up a network; raise an InputError when it is none of `ARCHITECTURES`."""
    if network not in ARCHITECTURES:
        raise InputError(
            f"network must be one of {', '.join(sorted(ARCHITECTURES))}, got {network!r}; "
            "set encoder.network to one"
        )
    return ARCHITECTURES[network]


def layer_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight and bias of the convolutions, by name and in their order.

    >>> layer_shapes("alexnet")["0.weight"]
    (64, 3, 11, 11)
    """
    architecture(network)
    return {name: tuple(w.shape) for name, w in _empty_features(network).state_dict().items()}


def _empty_features(network: str) -> nn.Sequential:
    with torch.device("meta"):  # no memory and no random numbers: the weights come from elsewhere
        return getattr(torchvision.models, network)(weights=None).features
