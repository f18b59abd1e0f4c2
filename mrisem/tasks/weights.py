"""Trainable weights of a stacked network as one matrix, and steps of Adam on it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mrisem.types import Batch, Reconstruction

MAX_UNDONE = 10  # number of undone steps in a row after which the fit of a slice stops
_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # torch's defaults for Adam

Groups = Callable[[nn.Module], list[dict[str, Any]]]


class State(NamedTuple):
    """Tensors that a step of Adam changes.

    Args:
        weights: ``(slice, weight)``.
        mean: ``(slice, weight)``, moving average of the gradients.
        square: ``(slice, weight)``, moving average of the squared gradients.
        steps: ``(slice, 1)`` float64, number of steps. In float32 ``1 - .999`` would not be 1e-3.
    """

    weights: Tensor
    mean: Tensor
    square: Tensor
    steps: Tensor

    def where(self, slices: Tensor, other: State) -> State:
        """Return this state for the slices of a mask ``(slice,)`` bool, the other for the rest."""
        chosen = slices[:, None]
        return State(*(torch.where(chosen, a, b) for a, b in zip(self, other, strict=True)))


class SliceWeights:
    """Adam on the weights of several slices at once; the slices are independent.

    When the loss or gradient of a slice is not finite, its last step is undone together with Adam's
    moments, and its learning rate is halved. After `MAX_UNDONE` such steps in a row the fit of the
    slice stops. No value is read back from a GPU, which would make it wait.

    Args:
        network: network whose trainable parameters have the slices as first axis
            (`mrisem.networks.stacked.stack`).
        learning_rate: learning rate of parameter groups that have none.
        halve_every: number of steps after which all learning rates are halved.
        groups: function of the network that returns parameter groups as Adam takes them; None: all
            trainable parameters form one group.
    """

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float,
        halve_every: int,
        groups: Groups | None = None,
    ) -> None:
        self.network, self.halve_every = network, halve_every
        trainable = [p for p in network.parameters() if p.requires_grad]
        parameter_groups: list[dict[str, Any]] = (
            groups(network) if groups else [{"params": trainable}]
        )
        rates: dict[int, float] = {
            id(p): g.get("lr", learning_rate) for g in parameter_groups for p in g["params"]
        }
        self.parameters = {k: p for k, p in network.named_parameters() if id(p) in rates}
        trained = self.parameters.values()
        self.sizes = [prod(p.shape[1:]) for p in trained]
        # one row for each slice, all parameters side by side: a step is a few operations on it
        weights = torch.cat([p.detach().reshape(len(p), -1) for p in trained], dim=1)
        self.rates = torch.cat([p.new_full((p[0].numel(),), rates[id(p)]) for p in trained])
        ones = weights.new_ones(len(weights))
        zeros = torch.zeros_like(weights)
        self._state = self._before = State(weights, zeros, zeros, 0 * ones[:, None].double())
        # of each slice: factor of the learning rate, number of undone steps in a row, whether the
        # last step was undone, whether the fit has stopped
        self._rate_factor, self._n_undone = ones, 0 * ones
        self._is_undone = self.given_up = ones < 0
        self._n_steps = 0
        self.leaf = weights.detach().requires_grad_()

    def __call__(self, batch: Batch, mask: Tensor | None) -> Reconstruction:
        """Apply the network with the current weights."""
        parts = self.leaf.split(self.sizes, dim=1)
        weights = {
            name: part.reshape(p.shape)
            for (name, p), part in zip(self.parameters.items(), parts, strict=True)
        }
        result: Reconstruction = functional_call(self.network, weights, (batch, mask))
        return result

    def check(self, finite: Tensor) -> None:
        """Undo the last step of the slices that are not finite; ``finite`` is ``(slice,)`` bool."""
        # finite values of a step that was not undone end a row of undone steps
        self._n_undone = torch.where(finite & ~self._is_undone, 0, self._n_undone)
        self._is_undone = ~finite
        is_undone = ~finite & ~self.given_up
        self._state = self._before.where(is_undone, self._state)
        self._n_undone = self._n_undone + is_undone
        self._rate_factor = torch.where(is_undone, 0.5 * self._rate_factor, self._rate_factor)
        self.given_up = self.given_up | (self._n_undone >= MAX_UNDONE)

    def step(self, gradient: Tensor) -> None:
        """Take a step of Adam for the slices whose last values were finite.

        Kingma & Ba, arXiv:1412.6980, in the order of operations of `torch.optim.Adam`.

        Args:
            gradient: ``(slice, weight)``, gradient of each slice's loss.
        """
        # w - rate * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps), for the active slices
        takes_step = ~self._is_undone & ~self.given_up
        self._before = self._state.where(takes_step, self._before)
        weights, mean, square, steps = self._state
        steps = steps + 1
        mean = torch.lerp(mean, gradient, 1 - _BETAS[0])
        square = _BETAS[1] * square + (1 - _BETAS[1]) * gradient.square()
        corrections = [(1 - beta**steps).to(mean.dtype) for beta in _BETAS]
        rate = 0.5 ** (self._n_steps // self.halve_every) * self._rate_factor[:, None] * self.rates
        direction = mean / corrections[0] / ((square / corrections[1]).sqrt() + _EPSILON)
        stepped = State(weights - rate * direction, mean, square, steps)
        self._state = stepped.where(takes_step, self._state)
        self._n_steps += 1
        self.leaf = self._state.weights.detach().requires_grad_()

    def keep(self, weights: Tensor | None = None) -> None:
        """Copy weights ``(slice, weight)`` into the network; None: the current weights."""
        values = self._state.weights if weights is None else weights
        with torch.no_grad():
            parts = values.split(self.sizes, dim=1)
            for parameter, part in zip(self.parameters.values(), parts, strict=True):
                parameter.copy_(part.reshape(parameter.shape))


class Best:
    """Weights of each slice that predict its validation samples best, for early stopping.

    Args:
        weights: ``(slice, weight)``, first weights.
        patience: number of updates without improvement after which a slice stops.
    """

    def __init__(self, weights: Tensor, patience: int) -> None:
        self.weights, self.patience = weights.detach(), patience
        self.losses = weights.new_full((len(weights),), torch.inf)
        self.waited = torch.zeros_like(self.losses)

    def update(self, losses: Tensor, weights: Tensor) -> None:
        """Keep the weights of slices whose loss is the lowest so far; ``losses``: ``(slice,)``."""
        running = ~self.done
        is_better = running & (losses < self.losses)
        self.waited = torch.where(is_better, 0, self.waited + running)
        self.losses = torch.where(is_better, losses, self.losses)
        self.weights = torch.where(is_better[:, None], weights.detach(), self.weights)

    @property
    def done(self) -> Tensor:
        """Mask ``(slice,)`` bool of the slices that have stopped."""
        return self.waited >= self.patience
