"""An implicit neural representation of one image: SIREN and a convolutional adaptor."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import torch
from einops import rearrange
from torch import Tensor, nn

from mrisem.networks.unet import channels_to_complex
from mrisem.types import Batch, Reconstruction


class Siren(nn.Module):
    """Layers of ``h -> sin(omega (W h + b))`` and a last linear one.

    Source: Sitzmann et al., NeurIPS 2020, arXiv:2006.09661, whose initialisation is used: ``W`` is
    uniform within ``1 / n`` in the first layer and within ``sqrt(6 / n) / omega`` in the others,
    ``n`` the number of inputs, so that every layer's arguments start with the same spread.

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
        """``(point, 2)`` float32 in [-1, 1] -> ``(point, 2)`` float32."""
        h = coordinates
        *sines, last = self.layers
        # positions and phases do not survive bfloat16
        with torch.autocast("cuda" if coordinates.is_cuda else "cpu", enabled=False):
            for layer in sines:
                h = layer(h).mul_(self.omega).sin()
            image: Tensor = last(h)
        return image


class ConvAdaptor(nn.Module):
    """3 x 3 convolutions with tanh between, added to their input.

    The method names the layers, not whether their input is added. Here it is, and the last layer
    starts at zero: an untrained adaptor is the identity, so fitting starts as a plain SIREN's, and
    the second stage, in which the SIREN is frozen, corrects an image instead of redrawing it.

    Args:
        layers: number of convolutions, at least 2.
        width: channels between them.
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
        """``(batch, 2, y, x)`` float32 -> the same."""
        h = channels
        for layer in self.layers[:-1]:
            h = layer(h).tanh()
        return channels + self.layers[-1](h)


class INR(nn.Module):
    """One image as a function of position (Feng et al., arXiv:2511.19641, its INR backbone).

    `forward` takes only the size and the device of a batch: no k-space value, map or mask entry
    reaches the network, so what it sees and what the loss sees are disjoint whatever the masks.
    The whole field of view is represented, the oversampled readout too, because the data term needs
    all of it. One network holds one image: fit one per slice. ``siren`` and ``adaptor`` are the two
    groups that the method gives their own learning rates.

    Args:
        layers: sine layers of the SIREN, before the linear output (paper: 8 layers).
        width: width of each sine layer (paper: 256).
        omega: frequency factor of the sine layers (paper: 15).
        adaptor_layers: convolutions of the adaptor (paper: 3).
        adaptor_width: channels between them (paper: 256).
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
        self._kept: dict[tuple, Tensor] = {}  # a frozen SIREN's image; never in the state dict

    def forward(self, batch: Batch, mask: Tensor | None = None) -> Reconstruction:
        """Draw the image at the size of a batch's k-space; every slice gets the same one.

        Only the batch's shape and device count. Iterates hold the SIREN's own image, then this one.
        """
        n, _, y, x = batch.masked_kspace.shape
        values = self._values(y, x, batch.masked_kspace.device)
        values = values if values.ndim == 3 else values[None]  # weights of each slice: `stack`
        # a view in the layout that convolutions run fastest in: channels last
        drawn = rearrange(values, "slice (y x) part -> slice part y x", y=y)
        drawings = (drawn, self.adaptor(drawn).to(drawn.dtype))
        images = [channels_to_complex(c).expand(n, y, x) for c in drawings]
        return Reconstruction(images[-1], tuple(images))

    def _values(self, y: int, x: int, device: torch.device) -> Tensor:
        """Evaluate the SIREN at all pixels; once only for frozen weights (second stage)."""
        weights = list(self.siren.parameters())
        if any(weight.requires_grad for weight in weights):
            return self.siren(grid(y, x, device).to(weights[0].dtype))
        # an optimiser step or loaded weights change a version, a move changes the device
        key = (y, x, device, *((weight.data_ptr(), weight._version) for weight in weights))
        if key not in self._kept:
            with torch.inference_mode(False), torch.no_grad():  # it must serve training afterwards
                points = grid(y, x, device).to(weights[0].dtype)
                self._kept = {key: self.siren(points)}
        return self._kept[key]


def grid(y: int, x: int, device: torch.device | str = "cpu") -> Tensor:
    """Pixel positions ``(row, column)`` in [-1, 1]^2, row by row: ``(y * x, 2)`` float32.

    >>> grid(2, 3)[:4].tolist()
    [[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0], [1.0, -1.0]]
    """
    axes = (torch.linspace(-1, 1, n, device=device) for n in (y, x))
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 2)
