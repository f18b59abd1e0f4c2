"""A residual U-Net on complex images."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mrisem.physics.sense import Measurement
from mrisem.types import Batch, Reconstruction


def complex_to_channels(image: Tensor) -> Tensor:
    """``(batch, y, x)`` complex -> ``(batch, 2, y, x)`` real: the real and imaginary part."""
    return rearrange(torch.view_as_real(image), "batch y x part -> batch part y x")


def channels_to_complex(channels: Tensor) -> Tensor:
    """``(batch, 2, y, x)`` real -> ``(batch, y, x)`` complex: inverse of `complex_to_channels`."""
    parts = rearrange(channels, "batch part y x -> batch y x part")
    return torch.view_as_complex(parts.contiguous())


class ResidualUnet(nn.Module):
    """fastMRI's U-Net as an image-to-image correction: ``x + U(x)``, zero at the start.

    The last convolution starts at zero, so an untrained network is the identity and per-scan
    fitting from scratch starts from what the data-consistency solve alone gives. Any image size:
    padded with zeros to a multiple of ``2**levels`` and cut back.

    Args:
        channels: width of the first level (paper: 64).
        levels: number of poolings (paper: 4).
    """

    def __init__(self, channels: int = 64, levels: int = 4) -> None:
        super().__init__()
        from fastmri.models import Unet

        self.multiple = 2**levels
        self.unet = Unet(in_chans=2, out_chans=2, chans=channels, num_pool_layers=levels)
        last = self.unet.up_conv[-1][-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, image: Tensor) -> Tensor:
        """``(batch, y, x)`` complex64, magnitudes of the order of 1 -> the same, corrected."""
        y, x = image.shape[-2:]
        # twice the multiple: instance normalisation needs more than one pixel at the bottom
        pad_y, pad_x = (max(-n % self.multiple, 2 * self.multiple - n) for n in (y, x))
        padding = (pad_x // 2, pad_x - pad_x // 2, pad_y // 2, pad_y - pad_y // 2)
        channels = functional.pad(complex_to_channels(image), padding)
        channels = self.unet(channels)[..., padding[2] :, padding[0] :][..., :y, :x]
        return image + channels_to_complex(channels.to(image.real.dtype))


class Unet(nn.Module):
    """One residual U-Net on the zero-filled image (Feng et al., arXiv:2511.19641).

    It corrects the image of the samples it is given and knows nothing of coils; the solve that
    restores consistency with the data belongs to whoever applies it. An unrolled
    network's stages start from its weights (`mrisem.networks.starts.load_start`).

    Args:
        channels: width of the first level (paper: 64).
        levels: number of poolings (paper: 4).
    """

    def __init__(self, channels: int = 64, levels: int = 4) -> None:
        super().__init__()
        self.unet = ResidualUnet(channels, levels)

    def forward(self, batch: Batch, mask: Tensor | None = None) -> Reconstruction:
        """Reconstruct a batch from the part of its k-space that ``mask`` selects.

        Args:
            batch: slices of equal shape.
            mask: ``(batch, y, x)`` bool, what the network may see; all samples if None.

        Returns:
            The corrected image; iterates hold the zero-filled image and it.
        """
        zero_filled = Measurement.of(batch, mask).zero_filled
        image = self.unet(zero_filled)
        return Reconstruction(image, (zero_filled, image))
