"""Networks with separate trainable weights for each slice of a batch.

`stack` gives every trainable weight a leading axis of slices. Frozen weights are shared: LoRA on a
frozen network is one convolution of the whole batch, plus factors for each slice. A convolution
with weights for each slice is a grouped convolution, a linear layer a batched matrix product.
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

    Input and output are ``(slice * k, channel, y, x)``: k images of each slice in a row, k >= 1.

    Args:
        layer: layer with the weights from which all slices start.
        n: number of slices.
    """

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d, n: int) -> None:
        super().__init__()
        # the list hides the layer from nn.Module: its weights must not be among the parameters
        self.n, self.layer = n, [layer]
        self.weight = repeated(layer.weight, n)
        self.bias = None if layer.bias is None else repeated(layer.bias, n)

    def forward(self, images: Tensor) -> Tensor:
        """Apply the weights of each slice to its images."""
        (layer,) = self.layer
        # the slices become groups of channels: (k, slice * channel, y, x)
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
        layer: layer with the weights from which all slices start.
        n: number of slices.
    """

    def __init__(self, layer: nn.Linear, n: int) -> None:
        super().__init__()
        self.weight = repeated(layer.weight, n)
        self.bias = None if layer.bias is None else repeated(layer.bias, n)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(point, in)``, shared by all slices, or ``(slice, point, in)``, to the latter."""
        product = features @ self.weight.mT
        return product if self.bias is None else product + self.bias[:, None]


class PerSlice(nn.Module):
    """Any network, applied to one slice of a batch after the other.

    Args:
        network: network with the weights from which all slices start.
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
        """Reconstruct each slice and concatenate the results."""
        if self._whole[0] is not batch or self._whole[1] is not mask:
            # kept between the steps of a fit: each part holds what its operators have prepared
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
    """Return a copy of a network with separate trainable weights for each of ``n`` slices.

    Every trainable parameter of the copy has the slices as first axis. The network itself is not
    changed. A network with a layer of unknown kind is applied slice by slice (`PerSlice`).
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
    """Concatenate reconstructions of single slices to one batch."""
    iterates = zip(*(r.iterates for r in results), strict=True)
    outputs = zip(*(r.network_outputs for r in results), strict=True)
    return Reconstruction(
        torch.cat([r.image for r in results]),
        tuple(torch.cat(images) for images in iterates),
        tuple(torch.cat(images) for images in outputs),
    )


@singledispatch
def stacked_layer(module: nn.Module, n: int) -> nn.Module:
    """Return the form of a module with trainable weights for each of ``n`` slices.

    Register a function for each kind of module, as below.

    Raises:
        NotImplementedError: for a kind without a function; `stack` then takes slices in turn.
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
    # a number such as lambda_k becomes one number a slice; larger weights need their module's rule
    if any(weight.ndim for weight in module):
        raise NotImplementedError
    return nn.ParameterList(repeated(weight, n) for weight in module)


def _stacked(module: nn.Module, n: int) -> nn.Module:
    """Replace every module with trainable weights of its own, from the innermost outwards."""
    for name, child in list(module.named_children()):
        setattr(module, name, _stacked(child, n))
    trainable = any(p.requires_grad for p in module.parameters(recurse=False))
    return stacked_layer(module, n) if trainable else module


def _select(mask: Tensor | None, index: int) -> Tensor | None:
    return None if mask is None else mask[index : index + 1]
