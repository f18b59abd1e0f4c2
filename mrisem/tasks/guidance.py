"""Guidance of a fit by the semantic prior: the prior's gradient at images, and its weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mrisem.physics.fourier import center_crop
from mrisem.physics.sense import Measurement
from mrisem.prior.prior import Prior
from mrisem.types import Batch

_MEMORY = 0.9  # weight of the previous limit in the moving average of the balance's limit


@dataclass(frozen=True)
class Steering:
    """Settings of the prior's influence (docs/method.md).

    Args:
        weight: lambda, in our scale (docs/method.md, Scale of lambda); None for methods that take
            no prior.
        balance: largest ratio of the norm of the prior's weighted gradient to that of the data
            term's, both at the image. ``weight`` is lowered where the ratio would be exceeded, and
            rises again smoothly. None: no limit.
        start_iteration: first iteration in which the prior acts, after the data term has settled.
        every: number of iterations between two evaluations of the prior; in the others its last
            gradient acts.
        unmeasured_only: whether to keep only the part of the prior's gradient in unmeasured
            k-space, ``g - A^H A g``, which does not oppose the data.
    """

    weight: float | None = 0.02
    balance: float | None = None
    start_iteration: int = 0
    every: int = 1
    unmeasured_only: bool = False


class Guidance:
    """Semantic prior on one batch, over the iterations of its fit.

    Args:
        prior: loss on magnitude images.
        batch: measured slices.
        steering: settings of the prior's influence.
    """

    def __init__(self, prior: Prior, batch: Batch, steering: Steering) -> None:
        self.prior = prior
        self.batch = batch
        self.steering = steering
        self._limit: Tensor | None = None
        self._last: list[Tensor] = []  # gradients of the last evaluation, one for each image

    def __call__(
        self, images: Sequence[Tensor], data_gradients: Sequence[Tensor], iteration: int
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Evaluate the prior at one or several images of each slice; several are summed.

        Args:
            images: at least one tensor ``(batch, y, x)`` complex64.
            data_gradients: gradient of the data term at each of the images.
            iteration: step of the fit, from 0.

        Returns:
            name -> ``(batch,)`` value at the last image, and the weighted gradient at each image.
            ``gradient_balance`` is the norm of the weighted gradients over that of the data term's,
            both over all images together.
        """
        if iteration < self.steering.start_iteration:
            return {}, [torch.zeros_like(gradient) for gradient in data_gradients]
        # between two evaluations of the prior its last gradient acts again
        values: dict[str, Tensor] = {}
        gradients = self._last
        if not gradients or (iteration - self.steering.start_iteration) % self.steering.every == 0:
            values, gradients = self._evaluate(images, iteration)
            self._store(gradients)
        norms = _norm(gradients), _norm(data_gradients)
        weights = self._weights(*norms)[:, None, None]
        weighted = [weights * gradient for gradient in gradients]
        return values | {"gradient_balance": _norm(weighted) / norms[1]}, weighted

    def _evaluate(
        self, images: Sequence[Tensor], iteration: int
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the prior's values at the last image, and its gradient at each image."""
        gradients = []
        for image in images:
            # the slices are independent, so the gradient of the sum holds that of each slice
            leaf = image.detach().requires_grad_()
            losses = self.prior.losses(self.magnitude(leaf), iteration)
            (gradient,) = torch.autograd.grad(losses["semantic"].sum(), leaf)
            if self.steering.unmeasured_only:
                # A^H A g is the part of g that acts on measured samples
                gradient = gradient - Measurement.of(self.batch).normal(gradient)
            gradients.append(gradient)
        return {name: value.detach() for name, value in losses.items()}, gradients

    def _store(self, gradients: list[Tensor]) -> None:
        """Keep gradients for the iterations until the next evaluation.

        Where a slice's gradient is not finite, its previous one is kept: the step that led there is
        undone, and must not be repeated.
        """
        previous_gradients = self._last or [torch.zeros_like(gradient) for gradient in gradients]
        finite = [_norm([gradient]).isfinite()[:, None, None] for gradient in gradients]
        self._last = [
            torch.where(is_finite, gradient, previous)
            for is_finite, gradient, previous in zip(
                finite, gradients, previous_gradients, strict=True
            )
        ]

    def magnitude(self, image: Tensor) -> Tensor:
        """Turn complex images ``(batch, y, x)`` to the prior's input: magnitudes, cropped."""
        return center_crop(image.abs(), self.batch.crop)

    def _weights(self, semantic_norm: Tensor, data_norm: Tensor) -> Tensor:
        """Compute the lambda of each slice from the norms of both gradients, all ``(batch,)``."""
        weight = torch.full_like(semantic_norm, self.steering.weight or 0.0)
        if self.steering.balance is None:
            return weight
        # the largest lambda with |lambda g_sem| <= balance |g_dc|
        limit = (
            self.steering.balance
            * data_norm
            / semantic_norm.clamp_min(torch.finfo(semantic_norm.dtype).tiny)
        )
        if self._limit is not None:
            smoothed = _MEMORY * self._limit + (1 - _MEMORY) * limit
            # The limit falls at once and rises slowly: a prior with a gradient near zero allows a
            # huge weight, which would be far too large as soon as its gradient grows again. A limit
            # that is not finite belongs to a step that is undone: keep the previous one.
            limit = torch.where(limit.isnan(), self._limit, torch.minimum(smoothed, limit))
        self._limit = limit
        return torch.minimum(weight, limit)


def _norm(images: Sequence[Tensor]) -> Tensor:
    """Norm of each slice over all images together: ``(batch,)``."""
    return torch.cat([image.flatten(1) for image in images], dim=1).norm(dim=1)
