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
    # not a matrix product: under mixed precision that would be rounded to bfloat16
    product = torch.view_as_real(a.contiguous()) * torch.view_as_real(b.contiguous())
    return product.sum((1, 2, 3))[:, None, None]


class Solution(NamedTuple):
    """Solution of a linear system.

    Args:
        image: ``(batch, y, x)`` complex, x.
        residual: ``(batch,)``, ``|operator(x) - b| / |b|``.
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
    """Solve ``operator(x) = b`` by conjugate gradients for all slices of a batch at once.

    Source: Hestenes & Stiefel 1952. The slices are independent systems. A slice whose residual norm
    has fallen below ``tolerance * |b|`` takes steps of zero while the others continue. On a GPU no
    value is read back to the host, which would make the GPU wait. Gradients do not pass through
    this function: see `solve_data_consistency`.

    Args:
        operator: Hermitian positive definite map ``(batch, y, x)`` -> ``(batch, y, x)``.
        right_hand_side: ``(batch, y, x)`` complex, b.
        start: ``(batch, y, x)`` complex, first x; None: zero.
        tolerance: relative residual norm below which a slice is solved.
        max_iterations: largest number of iterations.
    """
    total = _inner(right_hand_side, right_hand_side)
    # where b is zero the solution is zero, whatever the start
    x = torch.zeros_like(right_hand_side) if start is None else torch.where(total > 0, start, 0)
    residual = right_hand_side - (operator(x) if start is not None else 0)
    direction = residual
    energy = _inner(residual, residual)
    threshold = tolerance**2 * total
    for _ in range(max_iterations):
        active = energy > threshold
        # on a GPU this look at a value would make it wait; tensors on "meta" have no values
        if energy.device.type == "cpu" and not active.any():
            break
        operator_direction = operator(direction)
        curvature = _inner(direction, operator_direction)
        step = torch.where(active, energy / torch.where(active, curvature, 1.0), 0.0)
        x = x + step * direction
        residual = residual - step * operator_direction
        new_energy = _inner(residual, residual)
        # the new direction is conjugate to the earlier ones (Fletcher and Reeves' ratio)
        ratio = torch.where(active, new_energy / torch.where(active, energy, 1.0), 0.0)
        direction = torch.where(active, residual + ratio * direction, direction)
        energy = new_energy
    relative = (energy / torch.where(total > 0, total, 1.0)).sqrt()
    return Solution(x, relative[:, 0, 0])


@dataclass
class Solves:
    """Results of the last of a sequence of similar solves; the next solve starts from them.

    From one step of a fit to the next the right-hand side changes only by ``mu`` times the change
    of the network's image, with ``mu`` about .01.

    Args:
        image: ``(batch, y, x)`` complex, last solution; None: there was none.
        gradient: ``(batch, y, x)`` complex, last solution of the solve for the gradient, or None.
        residual: ``(batch,)``, relative residual of the last solve.
        gradient_residual: ``(batch,)``, relative residual of the last solve for the gradient.
    """

    image: Tensor | None = None
    gradient: Tensor | None = None
    residual: Tensor | None = None
    gradient_residual: Tensor | None = None


class _ImplicitSolve(torch.autograd.Function):
    """``x(b, mu) = (A^H A + mu I)^-1 b``, with its gradient by the implicit-function rule.

    Let ``g`` be the gradient with respect to x. Then ``v = (A^H A + mu I)^-1 g`` is the gradient
    with respect to b, and ``-Re<v, x>`` the one with respect to mu. This takes one more solve; no
    iterate is stored.
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
        last.image = image.detach()  # the output itself would keep the graph behind it in memory
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
        last.gradient = to_rhs.clone()  # autograd may overwrite the tensor that is returned
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = -_inner(to_rhs, solution).sum_to_size(weight.shape)
        return to_rhs, to_weight, None, None, None, None, None


def _usable(last: Tensor | None, fallback: Tensor) -> Tensor:
    """Return the last solutions; where there is none or it is not finite, the other images."""
    if last is None:
        return fallback
    finite = torch.view_as_real(last).sum((1, 2, 3)).isfinite()
    return torch.where(finite[:, None, None], last, fallback)


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
    """Solve ``(A^H A + mu I) x = A^H y + mu x_net`` by conjugate gradients, differentiably.

    The gradient with respect to ``image`` and ``weight`` comes from the implicit-function rule. It
    takes one more solve; its memory does not grow with the iterations. It is exact only where
    conjugate gradients have converged.

    Args:
        sense: encoding operator A.
        adjoint_kspace: ``(batch, y, x)`` complex64, ``A^H y``.
        image: ``(batch, y, x)`` complex64, ``x_net``; also the starting point.
        weight: mu > 0, float32 of shape () or ``(batch, 1, 1)``.
        tolerance: relative residual norm below which a slice is solved.
        gradient_tolerance: the same for the gradient's solve; None: the value of ``tolerance``.
        max_iterations: largest number of iterations of each of the two solves.
        last: results of a similar solve, from which this one starts and which it replaces; None:
            the solve starts from ``image``.

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
