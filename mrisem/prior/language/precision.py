"""Float32 where it matters: whatever precision surrounds it, and with weights stored in bfloat16.

Response embeddings of one model differ by cosines of .003 (`docs/method.md`): bfloat16, which
resolves .004, would lose what the language loss compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@contextmanager
def full_float32(device_type: str) -> Iterator[None]:
    """Keep float32 matrix products and convolutions exact inside.

    No autocast; no TensorFloat-32 and no bfloat16 behind a float32 product, whether it was asked
    for by `torch.set_float32_matmul_precision`, by `torch.backends`, or is the default (cuDNN).
    """
    kinds: Any = torch.backends
    places = (kinds.cuda.matmul, kinds.cudnn.conv, kinds.mkldnn.matmul, kinds.mkldnn.conv)
    reduced = [(p, p.fp32_precision) for p in places if p.fp32_precision not in ("ieee", "none")]
    try:
        for place, _ in reduced:
            place.fp32_precision = "ieee"
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for place, before in reduced:
            place.fp32_precision = before


class IndependentValues(torch.autograd.Function):
    """Values of a function of single images in full float32, forwards and backwards.

    Autograd runs the backward pass under the precision of whoever asks for it, not of the forward
    pass. The gradient is therefore taken here, at once, image by image: memory does not grow with
    the batch, and the graph behind a value is one stored gradient.

    ``apply`` takes ``(batch, y, x)`` images and a function ``(1, y, x)`` float32 -> ``(1, k)``. It
    returns ``(batch, k)`` float32; the first column is differentiable (once) in the images.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Evaluate the images and keep the gradients of their first values."""
        ctx.dtype, wanted = images.dtype, ctx.needs_input_grad[0]
        values, gradients = [], []
        with full_float32(images.device.type):
            for chunk in images.detach().float().split(1):
                with torch.set_grad_enabled(wanted):
                    leaf = chunk.clone().requires_grad_(wanted)
                    value = function(leaf)
                    if wanted:
                        gradients += torch.autograd.grad(value[:, 0].sum(), leaf)
                values.append(value.detach())
        ctx.save_for_backward(*gradients)
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Scale the kept gradients."""
        images = torch.cat(ctx.saved_tensors) * gradient[:, 0, None, None]
        return images.to(ctx.dtype), None


class FrozenLinear(nn.Module):
    """``x W^T + b`` in the precision of ``x``, whatever ``W`` is stored in; no gradient to ``W``.

    Autograd keeps ``W`` as it is stored, not its converted copy.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in)`` -> ``(..., out)`` in the dtype of ``x``."""
        product: Tensor = _FrozenProduct.apply(x, self.weight)
        return product if self.bias is None else product + self.bias.to(x.dtype)


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return x @ weight.to(x.dtype).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradient @ weight.to(gradient.dtype), None


def freeze_linears(module: nn.Module) -> None:
    """Replace every nn.Linear inside by a `FrozenLinear` with the same weights and names."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, FrozenLinear(child))
        else:
            freeze_linears(child)
