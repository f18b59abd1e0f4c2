"""Unrolled network whose U-Nets also see the features of a frozen encoder of images."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

import torch
from annotated_types import Ge
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mrisem.errors import InputError
from mrisem.networks.unet import ResidualUnet
from mrisem.networks.unrolled import Stages
from mrisem.physics.fourier import center_crop


class Encoder(Protocol):
    """Interface of an encoder in a network (`mrisem.prior.image.encoder` has some).

    Attributes:
        widths: number of features of a token at each level.
        n_tokens: number of tokens of an image, on a square grid, row by row.
        extent: side of the square about the image's centre that the tokens cover, pixels; None:
            they cover the whole image.
        fingerprint: hash of all on which the output depends.
    """

    widths: tuple[int, ...]
    n_tokens: int
    extent: int | None
    fingerprint: str

    def __call__(self, magnitude: Tensor) -> tuple[Tensor, ...]:
        """Embed images ``(n, y, x)``, not negative: ``(n, token, feature)`` of each level."""


class Features:
    """Features of a frozen encoder as maps.

    It is no nn.Module: so the encoder's weights are in no state dict, no optimiser trains them,
    they get no LoRA factors, and copies of a network share them.

    Args:
        encoder: encoder that is frozen; its weights follow the images from device to device.

    Raises:
        InputError: when the encoder does not say where its tokens lie, or they form no square, or
            have a single feature.
    """

    def __init__(self, encoder: Encoder) -> None:
        missing = [name for name in Encoder.__annotations__ if not hasattr(encoder, name)]
        if missing:
            raise InputError(
                f"an encoder in a network must state {', '.join(Encoder.__annotations__)}, got "
                f"{type(encoder).__name__} without {missing[0]}; add it, or set encoder=vgg16"
            )
        self.side = math.isqrt(encoder.n_tokens)
        # a single feature would be normalised away
        if self.side**2 != encoder.n_tokens or min(encoder.widths) < 2:
            raise InputError(
                "an encoder in a network must have tokens of two features or more on a square "
                f"grid, got {encoder.n_tokens} tokens of width {[*encoder.widths]}; choose another"
            )
        if isinstance(encoder, nn.Module):
            encoder.requires_grad_(False).eval()
        self.encoder, self.fingerprint = encoder, encoder.fingerprint

    def __deepcopy__(self, memo: dict[int, Any]) -> Features:
        return self

    @torch.no_grad()
    def __call__(self, image: Tensor) -> list[Tensor]:
        """Return the features ``(batch, feature, row, column)`` of ``|image|`` at each level.

        Those of a token have mean 0 and variance 1, as after the final norm of a transformer:
        encoders differ in scale by far.
        """
        encoder: Any = self.encoder
        if isinstance(encoder, nn.Module):
            # on "meta", where costs are counted, the weights of a copy may be lost
            encoder = (copy.deepcopy(encoder) if image.is_meta else encoder).to(image.device)
        levels = [tokens.to(image.real.dtype) for tokens in encoder(image.abs())]
        scaled = [functional.layer_norm(tokens, tokens.shape[-1:]) for tokens in levels]
        return [rearrange(t, "n (row column) f -> n f row column", row=self.side) for t in scaled]


class FeatureUnet(nn.Module):
    """Correction of an image by a U-Net that sees the image and features of its magnitude.

    A 1 x 1 convolution reduces the features of each level to few, which are interpolated to the
    image's grid. No gradient passes through the encoder to the image: earlier stages learn through
    the image alone. With it a training step took 1.3 times the time with VGG16, 1.2 times with
    janus_mini, and kept every activation of the encoder in memory; the loss was no lower.

    Args:
        features: features of the frozen encoder.
        n_features: number of features of a level that the U-Net sees.
        channels: number of channels of the first level of the U-Net.
        levels: number of poolings of the U-Net.
    """

    def __init__(self, features: Features, n_features: int, channels: int, levels: int) -> None:
        super().__init__()
        self.features = features
        widths = features.encoder.widths
        # the U-Net normalises its channels, which would undo a bias
        self.projections = nn.ModuleList(
            nn.Conv2d(width, n_features, 1, bias=False) for width in widths
        )
        self.unet = ResidualUnet(channels, levels, n_features * len(widths))

    def forward(self, image: Tensor) -> Tensor:
        """Correct images ``(batch, y, x)`` complex64 with magnitudes of the order of 1."""
        y, x = image.shape[-2:]
        maps = [
            place(project(level), self.features.encoder.extent, (y, x))
            for project, level in zip(self.projections, self.features(image), strict=True)
        ]
        corrected: Tensor = self.unet(image, *maps)
        return corrected


class UnrolledViT(Stages):
    """Stages of a `FeatureUnet`: features of a frozen encoder in every stage of `Unrolled`.

    After Hashmi et al., arXiv:2604.22557, who decode the features of a frozen vision transformer in
    every cascade. Here the decoder is the U-Net of `Unrolled` with more inputs, so that the two
    networks differ by the features alone. Checkpoints hold the encoder's fingerprint, never its
    weights.

    Args:
        encoder: encoder with any weights; it is frozen. All stages share it.
        stages: number of stages.
        channels: number of channels of the first level of each U-Net.
        levels: number of poolings of each U-Net.
        n_features: number of features of each level of the encoder that a U-Net sees.
        initial_lambda: first value of every lambda_k.
        cg_iterations: largest number of conjugate-gradient iterations of a stage.
        cg_tolerance: relative residual at which conjugate gradients stop.
        gradient_tolerance: relative residual at which the solves for gradients stop.

    Raises:
        InputError: when the encoder cannot be used (see `Features`).
    """

    encoder_fingerprint: Tensor

    def __init__(
        self,
        encoder: Encoder,
        stages: int = 4,
        channels: int = 64,
        levels: int = 4,
        n_features: Annotated[int, Ge(1)] = 16,
        initial_lambda: float = 0.01,
        cg_iterations: int = 20,
        cg_tolerance: float = 2e-4,
        gradient_tolerance: float = 2e-2,
    ) -> None:
        features = Features(encoder)
        unets = [FeatureUnet(features, n_features, channels, levels) for _ in range(stages)]
        super().__init__(unets, initial_lambda, cg_iterations, cg_tolerance, gradient_tolerance)
        digest = hashlib.sha256(features.fingerprint.encode()).digest()
        self.register_buffer("encoder_fingerprint", torch.tensor([*digest], dtype=torch.uint8))
        self.register_load_state_dict_pre_hook(refuse_other_encoder)


def refuse_other_encoder(
    network: nn.Module, weights: Mapping[str, Tensor], prefix: str = "", *_: Any
) -> None:
    """Raise InputError for weights that were trained with the features of another encoder."""
    own = network.get_buffer("encoder_fingerprint")
    other = weights.get(f"{prefix}encoder_fingerprint")
    if other is not None and not torch.equal(own.cpu(), other.cpu()):
        here, there = (bytes(value.tolist()).hex()[:8] for value in (own, other))
        raise InputError(
            "weights must be of a network with the same encoder, got those of another one "
            f"(fingerprint {there}, here {here}); set encoder and its options as in the training"
        )


def place(maps: Tensor, extent: int | None, shape: tuple[int, int]) -> Tensor:
    """Interpolate maps of tokens to the grid of an image, each token about its own place.

    Args:
        maps: ``(n, feature, row, column)``.
        extent: side of the square about the pixel ``n // 2`` that the maps cover, pixels; None:
            they cover the image.
        shape: ``(y, x)`` of the image.

    Returns:
        ``(n, feature, y, x)``, zero where no token lies.

    >>> place(torch.ones(1, 1, 2, 2), 2, (1, 5)).flatten()
    tensor([0., 1., 1., 0., 0.])
    """
    size = shape if extent is None else (extent, extent)
    maps = functional.interpolate(maps, size, mode="bilinear")
    height, width = min(size[0], shape[0]), min(size[1], shape[1])
    top, left = shape[0] // 2 - height // 2, shape[1] // 2 - width // 2
    margins = (left, shape[1] - width - left, top, shape[0] - height - top)
    return functional.pad(center_crop(maps, (height, width)), margins)
