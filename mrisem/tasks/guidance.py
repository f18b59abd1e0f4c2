"""How the semantic prior steers a fit: its gradient at the image, and how strongly it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mrisem.physics.fourier import center_crop
from mrisem.physics.sense import Measurement
from mrisem.prior.prior import Prior
from mrisem.types import Batch

_MEMORY = 0.9  # of the balance's limit, per iteration


@dataclass(frozen=True)
class Steering:
    """How the prior counts; each an option to be ablated (docs/method.md).

    Args:
        weight: lambda, in our scale (docs/method.md); None for methods that take no prior.
        balance: the prior's gradient norm at the image is at most this share of the data term's:
            ``weight`` is lowered as far as that takes, and rises again smoothly. None: no limit.
        start_iteration: the prior is silent before: the data term settles first.
        every: iterations from one evaluation to the next; between them its last gradient acts.
        unmeasured_only: keep of the prior's gradient the part in unmeasured k-space,
            ``g - A^H A g``, so that it does not pull against the measurement.
    """

    weight: float | None = 0.02
    balance: float | None = None
    start_iteration: int = 0
    every: int = 1
    unmeasured_only: bool = False


class Guidance:
    """The semantic prior on one batch, over the iterations of its fit."""

    def __init__(self, prior: Prior, batch: Batch, steering: Steering) -> None:
        self.prior = prior
        self.batch = batch
        self.steering = steering
        self._limit: Tensor | None = None
        self._last: list[Tensor] = []  # gradients

    def __call__(
        self, images: Sequence[Tensor], data_gradients: Sequence[Tensor], iteration: int
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Evaluate the prior at one image of each slice, or at several, summed.

        Args:
            images: ``(batch, y, x)`` complex64 each, at least one.
            data_gradients: gradients of the data term there.
            iteration: step of the fit, from 0.

        Returns:
            Named ``(batch,)`` values of the last image, among them ``gradient_balance``: the norm
            of the prior's weighted gradient over the data term's, of all images together. Then
            that weighted gradient at each image.
        """
        if iteration < self.steering.start_iteration:
            return {}, [torch.zeros_like(gradient) for gradient in data_gradients]
        values: dict[str, Tensor] = {}
        gradients = self._last
        if not gradients or (iteration - self.steering.start_iteration) % self.steering.every == 0:
            values, gradients = self._evaluate(images, iteration)
            self._keep(gradients)
        norms = _norm(gradients), _norm(data_gradients)
        weights = self._weights(*norms)[:, None, None]
        pushes = [weights * gradient for gradient in gradients]
        return values | {"gradient_balance": _norm(pushes) / norms[1]}, pushes

    def _evaluate(
        self, images: Sequence[Tensor], iteration: int
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the named values of the last image, and the gradient of the loss at each."""
        gradients = []
        for image in images:
            leaf = image.detach().requires_grad_()
            losses = self.prior.losses(self.magnitude(leaf), iteration)
            (gradient,) = torch.autograd.grad(losses["semantic"].sum(), leaf)
            if self.steering.unmeasured_only:
                gradient = gradient - Measurement.of(self.batch).normal(gradient)
            gradients.append(gradient)
        return {name: value.detach() for name, value in losses.items()}, gradients

    def _keep(self, gradients: list[Tensor]) -> None:
        """Keep gradients for the iterations between; a slice keeps its own where one is not finite.

        Such a step is undone, and must not come back.
        """
        last = self._last or [torch.zeros_like(gradient) for gradient in gradients]
        finite = [_norm([gradient]).isfinite()[:, None, None] for gradient in gradients]
        self._last = [
            torch.where(good, gradient, before)
            for good, gradient, before in zip(finite, gradients, last, strict=True)
        ]

    def magnitude(self, image: Tensor) -> Tensor:
        """``(batch, y, x)`` complex images as the prior sees them: cropped magnitudes."""
        return center_crop(image.abs(), self.batch.crop)

    def _weights(self, semantic: Tensor, data: Tensor) -> Tensor:
        """Each slice's lambda, from the norms of both gradients, all ``(batch,)``."""
        weight = torch.full_like(semantic, self.steering.weight or 0.0)
        if self.steering.balance is None:
            return weight
        limit = self.steering.balance * data / semantic.clamp_min(torch.finfo(semantic.dtype).tiny)
        if self._limit is not None:
            smooth = _MEMORY * self._limit + (1 - _MEMORY) * limit
            # a loss near zero allows a huge weight, and may wake up; a step that is not finite is
            # undone, and leaves no trace here
            limit = torch.where(limit.isnan(), self._limit, torch.minimum(smooth, limit))
        self._limit = limit
        return torch.minimum(weight, limit)


def _norm(images: Sequence[Tensor]) -> Tensor:
    """Norm of each slice's images together."""
    return torch.cat([image.flatten(1) for image in images], dim=1).norm(dim=1)
