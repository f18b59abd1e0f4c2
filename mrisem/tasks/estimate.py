"""Cost of one step of a fit, counted on tensors without memory (device ``meta``)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mrisem.types import Batch, SliceInfo


@dataclass(frozen=True)
class Cost:
    """Cost of a forward and a backward pass for one slice.

    Args:
        flops: floating-point operations; a multiplication with an addition counts as two.
        saved: bytes that the forward pass keeps for the backward pass.
        weights: bytes of the weights.
    """

    flops: float
    saved: float
    weights: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flops + other.flops, self.saved + other.saved, self.weights + other.weights
        )


def network_cost(network: nn.Module, shape: tuple[int, int, int], crop: tuple[int, int]) -> Cost:
    """Count one pass of a backbone over a slice.

    Args:
        network: backbone.
        shape: ``(coil, y, x)`` of the k-space.
        crop: ``(Y, X)``, size of the target.
    """
    coils, y, x = shape
    with torch.device("meta"):
        kspace = torch.empty(1, coils, y, x, dtype=torch.complex64)
        mask = torch.empty(1, y, x, dtype=torch.bool)
        info = (SliceInfo("", 0, 1, "", "", 4.0),)
        batch = Batch(kspace, mask, torch.empty_like(kspace), torch.empty(1), crop, info)
    return _cost(network, lambda copied: copied(batch, mask).image.abs().sum())


def encoder_cost(encoder: nn.Module, crop: tuple[int, int]) -> Cost:
    """Count one pass of an encoder over an image of size ``crop``, with its gradient."""
    image = torch.empty(1, *crop, device="meta", requires_grad=True)
    return _cost(encoder, lambda copied: sum(level.float().sum() for level in copied(image)))


def _cost(module: nn.Module, scalar: Callable[[Any], Any]) -> Cost:
    """Count the forward and backward pass of a scalar function of a module."""
    # a copy on "meta" has shapes but no values: nothing is computed
    copied = copy.deepcopy(module).to("meta")
    weights = {id(p): p.numel() * p.element_size() for p in copied.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        # views share memory: count each storage once, and no weights
        if id(tensor) not in weights:
            storage = tensor.untyped_storage()
            saved[storage._cdata] = storage.nbytes()
        return tensor

    # torch counts matrix products and convolutions, but no Fourier transforms
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten._fft_c2c: _fft_flops})
    with counter, torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        scalar(copied).backward()
    return Cost(counter.get_total_flops(), sum(saved.values()), sum(weights.values()))


def _fft_flops(shape: torch.Size, dim: list[int], *args: Any, **kwargs: Any) -> int:
    """Count ``5 N log2 N`` operations for each transform (Cooley & Tukey 1965)."""
    n = math.prod(shape[d] for d in dim)
    return int(5 * math.prod(shape) * math.log2(n))
