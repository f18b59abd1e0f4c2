"""Batched conjugate gradients, and the data-consistency solve with implicit gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mrisem.physics.sense import SenseOperator


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Real part of the inner product of each slice: ``(batch, y, x)`` -> ``(batch, 1, 1)``."""
    # no matrix product: mixed precision would round it to bfloat16
    product = torch.view_as_real(a.contiguous()) * torch.view_as_real(b.contiguous())
    return product.sum((1, 2, 3))[:, None, None]


class Solution(NamedTuple):
    """Solution of a linear system.

    Args:
        image: ``(batch, y, x)`` complex.
        residual: ``(batch,)``, norm of the residual over that of the right-hand side.
    """

    image: Tensor
    residual: Tensor


def conjugate_gradient(
    operator: Callable[[Tensor], Tensor],
    right_hand_side: Tensor,
    start: Tensor | None = None,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 30,
) -> Solution:
    """Solve ``operator(x) = b`` for a Hermitian positive definite operator, each slice by itself.

    Hestenes & Stiefel 1952. A slice whose residual norm has fallen below ``tolerance * |b|`` is
    frozen (its step becomes zero) while others go on; no value is read back to the host, so a
    GPU's queue never drains. Not differentiable by itself: see `solve_data_consistency`.

    Args:
        operator: ``(batch, y, x)`` -> ``(batch, y, x)``.
        right_hand_side: ``(batch, y, x)`` complex, b.
        start: ``(batch, y, x)`` complex; zero when None.
        tolerance: relative residual norm at which a slice is done.
        max_iterations: most iterations.
    """
    total = _inner(right_hand_side, right_hand_side)
    x = torch.zeros_like(right_hand_side) if start is None else torch.where(total > 0, start, 0)
    residual = right_hand_side - (operator(x) if start is not None else 0)
    direction = residual
    energy = _inner(residual, residual)
    threshold = tolerance**2 * total
    for _ in range(max_iterations):
        active = energy > threshold
        # a look at the values would make a GPU wait; tensors on "meta" have none
        if energy.device.type == "cpu" and not active.any():
            break
        image = operator(direction)
        curvature = _inner(direction, image)
        step = torch.where(active, energy / torch.where(active, curvature, 1.0), 0.0)
        x = x + step * direction
        residual = residual - step * image
        new_energy = _inner(residual, residual)
        ratio = torch.where(active, new_energy / torch.where(active, energy, 1.0), 0.0)
        direction = torch.where(active, residual + ratio * direction, direction)
        energy = new_energy
    relative = (energy / torch.where(total > 0, total, 1.0)).sqrt()
    return Solution(x, relative[:, 0, 0])


@dataclass
class Solves:
    """The last of a sequence of similar solves: the next one starts where it ended.

    From one step of a fit to the next the right-hand side changes little: by ``mu`` times the
    change of the network's image, with ``mu`` about .01.

    Args:
        image: ``(batch, y, x)``, the last solution; None: there was none.
        gradient: the same of the solve for the gradient.
        residual: ``(batch,)``, relative residual of the last solve.
        gradient_residual: the same of the solve for the gradient.
    """

    image: Tensor | None = None
    gradient: Tensor | None = None
    residual: Tensor | None = None
    gradient_residual: Tensor | None = None


class _ImplicitSolve(torch.autograd.Function):
    """``x(b, mu) = (A^H A + mu I)^-1 b`` with the gradient of the implicit-function rule.

    With ``g`` the gradient arriving at x, ``v = (A^H A + mu I)^-1 g`` is the gradient to b and
    ``-Re<v, x>`` the one to mu: one more solve, and no iterate is kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        right_hand_side: Tensor,
        weight: Tensor,
        start: Tensor,
        sense: SenseOperator,
        last: Solves,
        tolerances: tuple[float, float],
        max_iterations: int,
    ) -> Tensor:
        solve = partial(
            conjugate_gradient,
            lambda x: sense.normal(x) + weight * x,
            max_iterations=max_iterations,
        )
        start = _usable(last.image, start)
        image, last.residual = solve(right_hand_side, start, tolerance=tolerances[0])
        last.image = image.detach()  # the output itself would keep the graph that leads to it
        ctx.save_for_backward(image, weight)
        ctx.solve = partial(solve, tolerance=tolerances[1])
        ctx.last = last
        return image

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        solution, weight = ctx.saved_tensors
        last: Solves = ctx.last
        start = (
            None if last.gradient is None else _usable(last.gradient, torch.zeros_like(gradient))
        )
        to_rhs, last.gradient_residual = ctx.solve(gradient, start)
        last.gradient = to_rhs.clone()  # autograd may go on with the tensor that is returned
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = -_inner(to_rhs, solution).sum_to_size(weight.shape)
        return to_rhs, to_weight, None, None, None, None, None


def _usable(last: Tensor | None, other: Tensor) -> Tensor:
    """Return the last solutions, and the other images where one is not finite or none is there."""
    if last is None:
        return other
    finite = torch.view_as_real(last).sum((1, 2, 3)).isfinite()
    return torch.where(finite[:, None, None], last, other)


def solve_data_consistency(
    sense: SenseOperator,
    adjoint_kspace: Tensor,
    image: Tensor,
    weight: Tensor,
    *,
    tolerance: float = 1e-5,
    gradient_tolerance: float | None = None,
    max_iterations: int = 10,
    last: Solves | None = None,
) -> Tensor:
    """Solve ``(A^H A + mu I) x = A^H y + mu x_net``, differentiably.

    The gradient to ``image`` and to ``weight`` comes from the implicit-function rule: one more CG
    solve, memory independent of the number of iterations. It is exact where CG has converged.

    Args:
        sense: A.
        adjoint_kspace: ``(batch, y, x)`` complex64, ``A^H y``.
        image: ``(batch, y, x)`` complex64, ``x_net``; also the starting point.
        weight: mu > 0, float32 of shape () or ``(batch, 1, 1)``.
        tolerance: relative residual norm at which a slice is done.
        gradient_tolerance: the same of the solve for the gradient; None: the same value.
        max_iterations: most iterations of each of the two solves.
        last: solves that this one resembles, from where it starts; it is noted there.

    Returns:
        ``(batch, y, x)`` complex64.
    """
    weight = weight.reshape(-1, 1, 1)
    right_hand_side = adjoint_kspace + weight * image
    tolerances = tolerance, tolerance if gradient_tolerance is None else gradient_tolerance
    solved: Tensor = _ImplicitSolve.apply(
        *(right_hand_side, weight, image.detach(), sense, last or Solves()),
        *(tolerances, max_iterations),
    )
    return solved
