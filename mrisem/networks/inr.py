"""Implicit neural representation (INR) of one image: SIREN and a convolutional adaptor."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import torch
from einops import rearrange
from torch import Tensor, nn

from mrisem.networks.unet import channels_to_complex
from mrisem.types import Batch, Reconstruction


class Siren(nn.Module):
    """Sine layers ``h -> sin(omega (W h + b))`` and a linear output layer.

    Source: Sitzmann et al., NeurIPS 2020, arXiv:2006.09661, with its initialisation: for ``n``
    inputs ``W`` is uniform in ``[-1 / n, 1 / n]`` in the first layer and within
    ``sqrt(6 / n) / omega`` in the others. The arguments of all sines then have equal spread.

    Args:
        layers: number of sine layers, at least 1.
        width: width of every sine layer.
        omega: frequency factor of every sine layer.
    """

    def __init__(self, layers: int = 8, width: int = 256, omega: float = 15.0) -> None:
        super().__init__()
        self.omega = omega
        linear = [nn.Linear(n, m) for n, m in pairwise([2, *[width] * layers, 2])]
        for index, layer in enumerate(linear):
            n = layer.in_features
            bound = sqrt(6 / n) / omega if index else 1 / n
            nn.init.uniform_(layer.weight, -bound, bound)
        self.layers = nn.ModuleList(linear)

    def forward(self, coordinates: Tensor) -> Tensor:
        """Evaluate positions ``(point, 2)`` float32 in [-1, 1] -> ``(point, 2)`` float32."""
        hidden = coordinates
        *sines, last = self.layers
        # bfloat16 has 8 bits: too few for positions of hundreds of pixels and for phases
        with torch.autocast("cuda" if coordinates.is_cuda else "cpu", enabled=False):
            for layer in sines:
                hidden = layer(hidden).mul_(self.omega).sin()
            image: Tensor = last(hidden)
        return image


class ConvAdaptor(nn.Module):
    """3 x 3 convolutions with tanh between them, whose output is added to their input.

    The paper does not say whether the input is added. Here it is, and the last layer starts at
    zero, so an untrained adaptor is the identity. The fit then starts as that of a plain SIREN. In
    the second stage, with a frozen SIREN, the adaptor corrects an image and need not reproduce it.

    Args:
        layers: number of convolutions, at least 2.
        width: number of channels between them.
    """

    def __init__(self, layers: int = 3, width: int = 256) -> None:
        super().__init__()
        widths = [2, *[width] * (layers - 1), 2]
        convolutions = [nn.Conv2d(n, m, 3, padding=1) for n, m in pairwise(widths)]
        for parameter in convolutions[-1].parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.ModuleList(convolutions)
        self.to(memory_format=torch.channels_last)

    def forward(self, channels: Tensor) -> Tensor:
        """Correct images ``(batch, 2, y, x)`` float32 -> the same shape and dtype."""
        hidden = channels
        for layer in self.layers[:-1]:
            hidden = layer(hidden).tanh()
        return channels + self.layers[-1](hidden)


class INR(nn.Module):
    """One image as a function of position (INR backbone of Feng et al., arXiv:2511.19641).

    `forward` uses only the size and the device of a batch. No k-space value, map or mask entry
    reaches the network, so that no sample of the loss is in its input, whatever the masks. The
    network represents the whole field of view of the k-space, which the data term needs. One
    network holds one image: each slice needs its own. ``siren`` and ``adaptor`` are the two groups
    of weights to which the paper gives different learning rates.

    Args:
        layers: number of sine layers, before the linear output layer (paper: 8).
        width: width of each sine layer (paper: 256).
        omega: frequency factor of the sine layers (paper: 15).
        adaptor_layers: number of convolutions of the adaptor (paper: 3).
        adaptor_width: number of channels between them (paper: 256).
    """

    def __init__(
        self,
        layers: int = 8,
        width: int = 256,
        omega: float = 15.0,
        adaptor_layers: int = 3,
        adaptor_width: int = 256,
    ) -> None:
        super().__init__()
        self.siren = Siren(layers, width, omega)
        self.adaptor = ConvAdaptor(adaptor_layers, adaptor_width)
        self._cached_values: dict[
            tuple, Tensor
        ] = {}  # a frozen SIREN's output; not in the state dict

    def forward(self, batch: Batch, mask: Tensor | None = None) -> Reconstruction:
        """Evaluate the image at the size of a batch's k-space; every slice gets the same image.

        Of the batch only its shape and device are used, of the mask nothing. The iterates are the
        SIREN's output and the image.
        """
        n, _, y, x = batch.masked_kspace.shape
        values = self._values(y, x, batch.masked_kspace.device)
        # a network with weights for each slice (`stack`) has an axis of slices already
        values = values if values.ndim == 3 else values[None]
        # a view in channels-last layout, in which convolutions are fastest
        siren_channels = rearrange(values, "slice (y x) part -> slice part y x", y=y)
        both_channels = (siren_channels, self.adaptor(siren_channels).to(siren_channels.dtype))
        images = [channels_to_complex(channels).expand(n, y, x) for channels in both_channels]
        return Reconstruction(images[-1], tuple(images))

    def _values(self, y: int, x: int, device: torch.device) -> Tensor:
        """Evaluate the SIREN at all pixels; the output of a frozen SIREN (stage 2) is kept."""
        weights = list(self.siren.parameters())
        if any(weight.requires_grad for weight in weights):
            return self.siren(grid(y, x, device).to(weights[0].dtype))
        # The key changes with the weights: an optimiser step or loading raises a tensor's version,
        # and a move to another device changes its pointer.
        key = (y, x, device, *((weight.data_ptr(), weight._version) for weight in weights))
        if key not in self._cached_values:
            # a tensor made in inference mode could not be used in training afterwards
            with torch.inference_mode(False), torch.no_grad():
                points = grid(y, x, device).to(weights[0].dtype)
                self._cached_values = {key: self.siren(points)}
        return self._cached_values[key]


def grid(y: int, x: int, device: torch.device | str = "cpu") -> Tensor:
    """Make pixel positions ``(row, column)`` in [-1, 1]^2, row by row: ``(y * x, 2)`` float32.

    >>> grid(2, 3)[:4].tolist()
    [[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0], [1.0, -1.0]]
    """
    axes = (torch.linspace(-1, 1, n, device=device) for n in (y, x))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 2)
