"""Preparation of magnitude images for a vision encoder, differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop
from mrisem.prior.checkpoints import Normalisation


class Preparation(nn.Module):
    """Division by the maximum, normalisation, crop or padding to a square, repeated channels.

    Args:
        image_size: side of the square input, pixels; None: images keep their size.
        n_channels: number of channels of the input.
        normalisation: mean and std that map [0, 1] to the encoder's input range.
        pad_value: value around an image that is smaller than the input, in normalised units; None:
            black, which is -1 for a mean and std of .5 (the released scripts pad with 0).
        resized: side to which the square is reduced with antialiasing, pixels; None: not reduced.

    Raises:
        InputError: when the normalisation has another number of channels.
    """

    mean: Tensor
    std: Tensor
    frame: Tensor

    def __init__(
        self,
        image_size: int | None,
        n_channels: int,
        normalisation: Normalisation,
        pad_value: float | None = None,
        resized: int | None = None,
    ) -> None:
        super().__init__()
        self.image_size, self.resized = image_size, resized
        mean = _channels(normalisation[0], n_channels, "image_mean")
        std = _channels(normalisation[1], n_channels, "image_std")
        frame = -mean / std if pad_value is None else torch.full_like(mean, pad_value)
        for name, value in {"mean": mean, "std": std, "frame": frame}.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, magnitude: Tensor) -> Tensor:
        """Prepare magnitude images.

        Each image is divided by its maximum over all pixels; the gradient passes through the
        maximum, too. Pixel ``n // 2`` stays the centre. An image of zeros becomes black.

        Args:
            magnitude: ``(n, y, x)`` real in any unit, not negative.

        Returns:
            ``(n, channel, s, s)`` float32, or ``(n, channel, y, x)`` without a fixed size.

        Raises:
            InputError: when the images are not ``(n, y, x)`` or not real.
        """
        if magnitude.ndim != 3 or not magnitude.is_floating_point():
            raise InputError(
                f"magnitude must be real floating point (n, y, x), got {magnitude.dtype} "
                f"{tuple(magnitude.shape)}; take abs() and combine the coils first"
            )
        # the clamp keeps an image of zeros from 0 / 0
        peak = magnitude.amax(dim=(-2, -1), keepdim=True)
        relative = magnitude / peak.clamp_min(torch.finfo(magnitude.dtype).tiny)
        pixels = (relative.unsqueeze(1).to(self.mean.dtype) - self.mean) / self.std
        if self.image_size is not None:
            pixels = self._framed(pixels, self.image_size)
        if self.resized is None:
            return pixels
        return interpolate(pixels, (self.resized, self.resized), mode="bilinear", antialias=True)

    def facts(self) -> tuple:
        """Return the settings on which an encoder's output depends, for its fingerprint."""
        values = [value.flatten().tolist() for value in (self.mean, self.std, self.frame)]
        return self.image_size, values, *([] if self.resized is None else [self.resized])

    def _framed(self, pixels: Tensor, side: int) -> Tensor:
        """Crop or pad about the centre to a square."""
        height, width = (min(n, side) for n in pixels.shape[-2:])
        left, top = side // 2 - width // 2, side // 2 - height // 2
        margins = (left, side - width - left, top, side - height - top)
        # 1 in the margins, 0 in the image: the frame's value is added there only
        frame = self.frame * pad(self.frame.new_zeros((height, width)), margins, value=1.0)
        return pad(center_crop(pixels, (height, width)), margins) + frame


def _channels(values: float | Sequence[float], n_channels: int, name: str) -> Tensor:
    """Expand one value, or one for each channel, to ``(channel, 1, 1)``."""
    stated = torch.tensor(values, dtype=torch.float32).reshape(-1)
    if len(stated) not in (1, n_channels):
        raise InputError(
            f"{name} must have 1 value or one for each of {n_channels} channels, got {values}; "
            "save the model's own image processor in its folder"
        )
    return stated.expand(n_channels)[:, None, None].clone()
