"""VGG16 and AlexNet as encoders: feature maps of convolutions, averaged to a grid of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mrisem.errors import InputError
from mrisem.imagenet.layers import MEAN, STD, ConvolutionalLayers, architecture
from mrisem.imagenet.weights import random_weights, read_weights
from mrisem.prior.checkpoints import Normalisation
from mrisem.prior.image.preparation import Preparation

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class PerceptualEncoder(nn.Module):
    """Frozen convolutions as an encoder (`mrisem.prior.image.encoder.Encoder`).

    Level ``l`` is the last activation of block ``l``, counted from 1. The image keeps its own size.
    Each feature map is averaged to ``grid x grid`` tokens by adaptive average pooling: token
    ``(i, j)`` is the mean of the rows from ``floor(i Y / grid)`` to before
    ``ceil((i + 1) Y / grid)``, and of the columns alike. Windows share pixels where the size is no
    multiple of the grid; a map smaller than the grid gives some pixels to several tokens.

    Args:
        layers: Convolutions up to the deepest level.
        levels: Blocks whose activations are returned, in this order.
        grid: Number of tokens along each side of the image.
    """

    def __init__(self, layers: ConvolutionalLayers, levels: Sequence[int], grid: int) -> None:
        super().__init__()
        self.layers, self.levels, self.grid = layers, tuple(levels), grid
        self.widths = tuple(layers.architecture.widths[level - 1] for level in levels)
        self.n_tokens = grid**2
        self.prepare = Preparation(None, 3, Normalisation(MEAN, STD))
        self.eval()
        self.fingerprint = self._fingerprint()

    def train(self, mode: bool = True) -> PerceptualEncoder:
        """Stay in evaluation mode, whatever the surrounding task is in."""
        return super().train(False)

    def forward(self, magnitude: Tensor) -> tuple[Tensor, ...]:
        """Embed magnitude images, differentiably.

        Args:
            magnitude: ``(n, y, x)`` float32 magnitudes, any unit, not negative.

        Returns:
            ``(n, token, feature)`` for each level, in the dtype of the weights.
        """
        dtype = next(self.layers.parameters()).dtype
        maps = self.layers(self.prepare(magnitude).to(dtype))
        pooled = [adaptive_avg_pool2d(maps[level - 1], self.grid) for level in self.levels]
        return tuple(rearrange(p, "n feature y x -> n (y x) feature") for p in pooled)

    def _fingerprint(self) -> str:
        facts = (self.layers.network, self.levels, self.grid, *self.prepare.facts())
        digest = hashlib.sha256(repr(facts).encode())
        for name, weight in sorted(self.layers.state_dict().items()):
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(memoryview(weight.contiguous().view(-1).view(torch.uint8).numpy()))
        return digest.hexdigest()


def load_perceptual(
    network: str,
    levels: Sequence[int] = (4,),
    grid: int = 24,
    weights: str | Path | None = None,
    random_seed: int | None = None,
    dtype: str = "float32",
) -> PerceptualEncoder:
    """Load VGG16 or AlexNet as an encoder, up to the deepest level.

    Args:
        network: ``vgg16`` (levels 1 to 5: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3) or
            ``alexnet`` (relu1 to relu5).
        levels: Blocks whose activations are compared.
        grid: Number of tokens along each side of the image.
        weights: Path of a state dict of torchvision's network; None: the weights found on this
            machine (`mrisem.imagenet.weights.read_weights`). Nothing is downloaded.
        random_seed: Seed of random weights, for a control of what training gives; None: trained
            weights.
        dtype: Name of the dtype of weights and embeddings: ``float32``, ``bfloat16`` or
            ``float16``.

    Returns:
        the encoder, on the CPU.

    Raises:
        InputError: when network, levels, grid, weights or dtype do not serve.
    """
    n_blocks = len(architecture(network).block_ends)
    _check_levels(levels, n_blocks, network)
    if isinstance(grid, bool) or not isinstance(grid, int) or grid < 1:
        raise InputError(f"grid must be an integer of at least 1, got {grid!r}; set encoder.grid")
    if dtype not in _DTYPES:
        raise InputError(f"encoder.dtype must be one of {sorted(_DTYPES)}, got {dtype!r}; set one")
    if weights is not None and random_seed is not None:
        raise InputError(
            f"weights are either read or random, got weights={weights} and "
            f"random_seed={random_seed}; set one of them"
        )
    if random_seed is None:
        values = read_weights(network, weights)
    else:
        values = random_weights(network, random_seed)
    layers = ConvolutionalLayers(network, values, max(levels)).to(_DTYPES[dtype])
    return PerceptualEncoder(layers, levels, grid)


def _check_levels(levels: Sequence[int], n_blocks: int, network: str) -> None:
    if (
        not levels
        or len(set(levels)) != len(levels)
        or not set(levels) <= {*range(1, n_blocks + 1)}
    ):
        raise InputError(
            f"levels must be different blocks from 1 to {n_blocks} of {network}, got "
            f"{list(levels)}; set encoder.levels within it"
        )
