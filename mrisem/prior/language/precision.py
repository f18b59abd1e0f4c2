"""Float32 computation within code of lower precision, and with weights stored in bfloat16.

The cosines between response embeddings of one model differ by .003 (`docs/method.md`). bfloat16
resolves .004 near 1, so the language loss could not tell them apart.
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
    """Compute matrix products and convolutions in full float32 within the context.

    It disables autocast, and TensorFloat-32 or bfloat16 within float32 products. These may be set
    by `torch.set_float32_matmul_precision` or `torch.backends`, or be the default (cuDNN).
    """
    backends: Any = torch.backends
    # products and convolutions of each backend that has a precision of its own
    settings = (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    )
    reduced = [
        (setting, setting.fp32_precision)
        for setting in settings
        if setting.fp32_precision not in ("ieee", "none")
    ]
    try:
        for setting, _ in reduced:
            setting.fp32_precision = "ieee"
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for setting, precision in reduced:
            setting.fp32_precision = precision


class IndependentValues(torch.autograd.Function):
    """Values of a function of single images, with values and gradients in full float32.

    Autograd runs the backward pass in the precision that holds when it is called, not in that of
    the forward pass. The gradient is therefore computed in the forward pass, image by image. Memory
    does not grow with the batch, and only one gradient for each image is stored.

    ``apply`` takes images ``(batch, y, x)`` and a function ``(1, y, x)`` float32 -> ``(1, k)``. It
    returns ``(batch, k)`` float32; the first column is differentiable (once) in the images.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Evaluate the images; keep the gradients of their first values."""
        ctx.dtype, needs_gradient = images.dtype, ctx.needs_input_grad[0]
        values, gradients = [], []
        with full_float32(images.device.type):
            for image in images.detach().float().split(1):
                # inside an autograd function gradients are off; this graph ends with each image
                with torch.set_grad_enabled(needs_gradient):
                    leaf = image.clone().requires_grad_(needs_gradient)
                    value = function(leaf)
                    if needs_gradient:
                        gradients += torch.autograd.grad(value[:, 0].sum(), leaf)
                values.append(value.detach())
        ctx.save_for_backward(*gradients)
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Multiply the stored gradients with the incoming ones."""
        # images are independent, so the chain rule is one factor for each image
        images = torch.cat(ctx.saved_tensors) * gradient[:, 0, None, None]
        return images.to(ctx.dtype), None


class FrozenLinear(nn.Module):
    """Linear layer ``x W^T + b``, computed in the dtype of ``x``; W is frozen.

    W may be stored in another dtype. For the backward pass the stored W is kept, not its converted
    copy, which would take twice the memory.

    Args:
        linear: layer with W and b.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)`` in the dtype of ``x``."""
        product: Tensor = _FrozenProduct.apply(x, self.weight)
        return product if self.bias is None else product + self.bias.to(x.dtype)


class _FrozenProduct(torch.autograd.Function):
    """Product ``x W^T`` without a gradient to W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)  # the stored weight, not its converted copy
        return x @ weight.to(x.dtype).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradient @ weight.to(gradient.dtype), None


def freeze_linears(module: nn.Module) -> None:
    """Replace every nn.Linear in a module by a `FrozenLinear` of the same weights and names."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, FrozenLinear(child))
        else:
            freeze_linears(child)
