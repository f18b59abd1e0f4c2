"""Attention of the frozen towers: PyTorch's own, but for bfloat16 gradients on a CPU.

PyTorch's fused kernel spends most of a bfloat16 layer's backward pass there: it works block by
block in float32. Here the four products are written out as matrix products in bfloat16, the
probabilities kept from the forward pass: 2.4 times faster at ViT-L/16-384 size
(``tests/benchmarks/image_route.py``), at the price of ``heads * token**2`` numbers a layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NAME = "mrisem"


class _WrittenOut(torch.autograd.Function):
    """``softmax(scale q k^T) v`` and its gradient, each a batched matrix product."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            weights = torch.softmax((query * scale) @ key.mT, dim=-1)
            ctx.save_for_backward(query, key, value, weights)
            ctx.scale = scale
            return weights @ value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, weights = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            change = (gradient @ value.mT).mul_(weights)
            # d softmax: w * (g - sum(g * w)); the product is in `change` already
            change.sub_(weights * change.sum(-1, keepdim=True)).mul_(ctx.scale)
            return change @ key, change.mT @ query, weights.mT @ gradient, None


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it (its interface fixes the arguments).

    Args:
        module: the attention layer; a causal one gets PyTorch's attention.
        query: ``(n, head, token, feature)``, as ``key`` and ``value``.
        key: see ``query``.
        value: see ``query``.
        attention_mask: None for a vision tower; with one it gets PyTorch's attention.
        scaling: of the scores; None: ``1 / sqrt(feature)``.
        dropout: of the weights; with one it gets PyTorch's attention.
        options: for PyTorch's attention.

    Returns:
        ``(n, token, head, feature)``, and None for the weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    causal = options.get("is_causal") or getattr(module, "is_causal", True)  # as theirs decides
    plain = attention_mask is None and not dropout and not causal
    ours = query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.requires_grad
    if not (plain and ours):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _WrittenOut.apply(query, key, value, scale).transpose(1, 2).contiguous(), None


def register() -> str:
    """Make `attend` known to transformers; returns the name that a configuration asks for."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    return NAME
