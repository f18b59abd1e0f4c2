"""Residual U-Net on complex images."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mrisem.physics.sense import Measurement
from mrisem.types import Batch, Reconstruction


def complex_to_channels(image: Tensor) -> Tensor:
    """Split ``(batch, y, x)`` complex into real and imaginary part, ``(batch, 2, y, x)`` real."""
    return rearrange(torch.view_as_real(image), "batch y x part -> batch part y x")


def channels_to_complex(channels: Tensor) -> Tensor:
    """Join ``(batch, 2, y, x)`` real to ``(batch, y, x)`` complex, real part first."""
    parts = rearrange(channels, "batch part y x -> batch y x part")
    return torch.view_as_complex(parts.contiguous())


class ResidualUnet(nn.Module):
    """fastMRI's U-Net as a correction of an image, ``x + U(x)``, with ``U = 0`` at the start.

    The last convolution starts at zero, so an untrained network is the identity. A fit from scratch
    then starts from the result of the data-consistency solve alone. Images may have any size: they
    are padded with zeros to a multiple of ``2**levels``, and the output is cut back.

    Args:
        channels: number of channels of the first level (paper: 64).
        levels: number of poolings (paper: 4).
        n_maps: number of real maps that it sees beside the image.
    """

    def __init__(self, channels: int = 64, levels: int = 4, n_maps: int = 0) -> None:
        super().__init__()
        from fastmri.models import Unet

        self.multiple = 2**levels
        self.unet = Unet(in_chans=2 + n_maps, out_chans=2, chans=channels, num_pool_layers=levels)
        last = self.unet.up_conv[-1][-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, image: Tensor, *maps: Tensor) -> Tensor:
        """Correct images.

        Args:
            image: ``(batch, y, x)`` complex64 with magnitudes of the order of 1.
            maps: further inputs, each ``(batch, map, y, x)`` real.
        """
        y, x = image.shape[-2:]
        # at least twice the multiple: instance normalisation needs more than one pixel per channel
        # at the lowest level
        pad_y, pad_x = (max(-n % self.multiple, 2 * self.multiple - n) for n in (y, x))
        padding = (pad_x // 2, pad_x - pad_x // 2, pad_y // 2, pad_y - pad_y // 2)
        channels = functional.pad(torch.cat([complex_to_channels(image), *maps], dim=1), padding)
        channels = self.unet(channels)[..., padding[2] :, padding[0] :][..., :y, :x]
        return image + channels_to_complex(channels.to(image.real.dtype))


class Unet(nn.Module):
    """Residual U-Net on the zero-filled image (U-Net backbone of Feng et al., arXiv:2511.19641).

    It corrects the coil-combined image of the samples it is given. The solve that restores
    consistency with the data is a separate step (`mrisem.tasks.fitting.finish`). The stages of an
    unrolled network start from its weights (`mrisem.networks.starts.load_start`).

    Args:
        channels: number of channels of the first level (paper: 64).
        levels: number of poolings (paper: 4).
    """

    def __init__(self, channels: int = 64, levels: int = 4) -> None:
        super().__init__()
        self.unet = ResidualUnet(channels, levels)

    def forward(self, batch: Batch, mask: Tensor | None = None) -> Reconstruction:
        """Reconstruct a batch from the part of its k-space that ``mask`` selects.

        Args:
            batch: slices of equal shape.
            mask: ``(batch, y, x)`` bool, samples that the network may use; None: all.

        Returns:
            corrected image; the iterates are the zero-filled and the corrected image.
        """
        zero_filled = Measurement.of(batch, mask).zero_filled
        image = self.unet(zero_filled)
        return Reconstruction(image, (zero_filled, image))
