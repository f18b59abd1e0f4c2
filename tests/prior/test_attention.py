"""The written-out attention against PyTorch's, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mrisem.prior.attention import _WrittenOut, attend


class _Layer(torch.nn.Module):
    """A vision tower's attention layer, as far as the interface looks at it."""

    is_causal = False


def _tensors(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 17, 8)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def test_written_out_attention_has_the_right_gradient() -> None:
    inputs = _tensors(torch.float64)
    assert torch.autograd.gradcheck(lambda q, k, v: _WrittenOut.apply(q, k, v, 0.3), inputs)


@pytest.mark.parametrize("scaling", [None, 0.2])
def test_attend_bfloat16_agrees_with_pytorch_in_float32(scaling: float | None) -> None:
    inputs = _tensors(torch.bfloat16)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    push = torch.randn(2, 17, 3, 8, generator=torch.Generator().manual_seed(1))
    output, weights = attend(_Layer(), *inputs, None, scaling)
    expected = scaled_dot_product_attention(*exact, scale=scaling).transpose(1, 2)
    assert weights is None
    assert type(output.grad_fn).__name__ != "ScaledDotProductFlashAttentionForCpuBackward"
    torch.testing.assert_close(output.float(), expected, atol=0.02, rtol=0.02)
    ours = torch.autograd.grad(output, inputs, push.bfloat16())
    theirs = torch.autograd.grad(expected, exact, push)
    for mine, reference in zip(ours, theirs, strict=True):
        assert (mine.float() - reference).norm() < 0.02 * reference.norm()


def test_attend_float32_is_pytorchs_own() -> None:
    inputs = _tensors(torch.float32)
    output, _ = attend(_Layer(), *inputs, None)
    assert torch.equal(output, scaled_dot_product_attention(*inputs).transpose(1, 2))
