"""One network with trainable weights of its own for each slice of a batch.

`stack` gives every trainable weight a leading axis of slices. What stays frozen is shared: LoRA on
a frozen network is one convolution of the whole batch, and factors for each slice. Convolutions
with weights for each slice are grouped convolutions, linear layers batched matrix products.
"""

from __future__ import annotations

import copy
from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from mrisem.types import Batch, Reconstruction


class StackedConv(nn.Module):
    """`nn.Conv2d` or `nn.ConvTranspose2d` with weights ``(slice, ...)``.

    A slice has one image or several, one after the other: ``(slice * k, channel, y, x)``.

    Args:
        layer: layer with the weights that all slices start from.
        n: number of slices.
    """

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d, n: int) -> None:
        super().__init__()
        self.n, self.layer = n, [layer]  # in a list: its own weights are not ours
        self.weight = repeated(layer.weight, n)
        self.bias = None if layer.bias is None else repeated(layer.bias, n)

    def forward(self, images: Tensor) -> Tensor:
        """Apply each slice's weights to its images, by groups of channels."""
        (layer,) = self.layer
        per_slice = images.unflatten(0, (self.n, -1))
        side_by_side = per_slice.transpose(0, 1).flatten(1, 2)
        weight, groups = self.weight.flatten(0, 1), self.n * layer.groups
        bias = None if self.bias is None else self.bias.flatten()
        if isinstance(layer, nn.ConvTranspose2d):
            result = functional.conv_transpose2d(
                *(side_by_side, weight, bias, layer.stride, layer.padding),  # type: ignore[arg-type]
                *(layer.output_padding, groups, layer.dilation),
            )
        else:
            result = functional.conv2d(
                *(side_by_side, weight, bias, layer.stride, layer.padding),  # type: ignore[arg-type]
                *(layer.dilation, groups),
            )
        return result.unflatten(1, (self.n, -1)).transpose(0, 1).flatten(0, 1)


class StackedLinear(nn.Module):
    """`nn.Linear` with weights ``(slice, out, in)``.

    Args:
        layer: layer with the weights that all slices start from.
        n: number of slices.
    """

    def __init__(self, layer: nn.Linear, n: int) -> None:
        super().__init__()
        self.weight = repeated(layer.weight, n)
        self.bias = None if layer.bias is None else repeated(layer.bias, n)

    def forward(self, features: Tensor) -> Tensor:
        """``(point, in)``, the same for all slices, or ``(slice, point, in)``, to the latter."""
        product = features @ self.weight.mT
        return product if self.bias is None else product + self.bias[:, None]


class PerSlice(nn.Module):
    """Any network, applied to the slices of a batch in turn.

    Args:
        network: network with the weights that all slices start from.
        n: number of slices.
    """

    def __init__(self, network: nn.Module, n: int) -> None:
        super().__init__()
        self.network = [network]
        self.names = [name for name, p in network.named_parameters() if p.requires_grad]
        parameters = dict(network.named_parameters())
        self.weights = nn.ParameterList(repeated(parameters[name], n) for name in self.names)
        self._whole: tuple[Batch | None, Tensor | None] = (None, None)
        self._parts: list[tuple[Batch, Tensor | None]] = []

    def forward(self, batch: Batch, mask: Tensor | None = None) -> Reconstruction:
        """Reconstruct each slice, and put the results together."""
        if self._whole[0] is not batch or self._whole[1] is not mask:
            # kept, because what a part has prepared serves every step of a fit
            self._whole = batch, mask
            self._parts = [(batch.select(i), _select(mask, i)) for i in range(len(batch))]
        results = [
            functional_call(self.network[0], self._weights(i), part)
            for i, part in enumerate(self._parts)
        ]
        return join(results)

    def _weights(self, index: int) -> dict[str, Tensor]:
        return {name: w[index] for name, w in zip(self.names, self.weights, strict=True)}


def stack(network: nn.Module, n: int) -> nn.Module:
    """Return a copy whose trainable weights exist ``n`` times, for a batch of ``n`` slices.

    Each of its trainable parameters has the slices as first axis; the network is left as it is.
    """
    try:
        return _stacked(copy.deepcopy(network), n)
    except NotImplementedError:
        return PerSlice(copy.deepcopy(network), n)


def repeated(weight: Tensor, n: int) -> nn.Parameter:
    """Repeat a weight along a new first axis."""
    values = weight.detach().expand(n, *weight.shape).clone()
    return nn.Parameter(values, requires_grad=weight.requires_grad)


def join(results: list[Reconstruction]) -> Reconstruction:
    """Put the reconstructions of single slices into one batch."""
    iterates = zip(*(r.iterates for r in results), strict=True)
    outputs = zip(*(r.network_outputs for r in results), strict=True)
    return Reconstruction(
        torch.cat([r.image for r in results]),
        tuple(torch.cat(images) for images in iterates),
        tuple(torch.cat(images) for images in outputs),
    )


@singledispatch
def stacked_layer(module: nn.Module, n: int) -> nn.Module:
    """Return what a module with trainable weights becomes; a kind of module registers its own.

    Raises:
        NotImplementedError: of this kind nobody has said how; `stack` then takes slices in turn.
    """
    raise NotImplementedError


@stacked_layer.register
def _(module: nn.Linear, n: int) -> nn.Module:
    return StackedLinear(module, n)


@stacked_layer.register(nn.Conv2d)
@stacked_layer.register(nn.ConvTranspose2d)
def _(module: nn.Conv2d | nn.ConvTranspose2d, n: int) -> nn.Module:
    if module.padding_mode != "zeros":
        raise NotImplementedError
    return StackedConv(module, n)


@stacked_layer.register
def _(module: nn.ParameterList, n: int) -> nn.Module:
    if any(weight.ndim for weight in module):  # numbers, such as lambda_k, are of one slice each
        raise NotImplementedError
    return nn.ParameterList(repeated(weight, n) for weight in module)


def _stacked(module: nn.Module, n: int) -> nn.Module:
    for name, child in list(module.named_children()):
        setattr(module, name, _stacked(child, n))
    trainable = any(p.requires_grad for p in module.parameters(recurse=False))
    return stacked_layer(module, n) if trainable else module


def _select(mask: Tensor | None, index: int) -> Tensor | None:
    return None if mask is None else mask[index : index + 1]
