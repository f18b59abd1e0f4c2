"""The trainable weights of a stacked network as one matrix, and Adam's steps on it."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mrisem.types import Batch, Reconstruction

MAX_UNDONE = 10  # undone steps in a row after which a slice's fit is given up
_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # Adam's, as torch has them

Groups = Callable[[nn.Module], list[dict[str, Any]]]


class State(NamedTuple):
    """What a step of Adam changes, each with the slices first.

    Args:
        weights: ``(slice, weight)``.
        mean: moving average of the gradients, likewise.
        square: that of their squares.
        steps: ``(slice, 1)`` float64, number of steps taken: ``1 - .999`` is not 1e-3 in float32.
    """

    weights: Tensor
    mean: Tensor
    square: Tensor
    steps: Tensor

    def where(self, slices: Tensor, other: State) -> State:
        """Return this state for some slices, ``(slice,)`` bool, and another for the rest."""
        chosen = slices[:, None]
        return State(*(torch.where(chosen, a, b) for a, b in zip(self, other, strict=True)))


class SliceWeights:
    """Adam on the weights of several slices at once; no slice's step depends on another's.

    When a slice's loss or gradient is not finite, its last step is undone, with Adam's moments, and
    its learning rate is halved; after `MAX_UNDONE` such steps in a row the slice is given up. All
    of this stays on the device: nothing waits for a value.

    Args:
        network: its trainable parameters have the slices first (`mrisem.networks.stacked.stack`).
        learning_rate: learning rate of groups that name none.
        halve_every: steps after which all rates are halved.
        groups: the network -> parameter groups as Adam takes them; None: all that is trainable.
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
        named: list[dict[str, Any]] = groups(network) if groups else [{"params": trainable}]
        rates: dict[int, float] = {
            id(p): g.get("lr", learning_rate) for g in named for p in g["params"]
        }
        self.parameters = {k: p for k, p in network.named_parameters() if id(p) in rates}
        chosen = self.parameters.values()
        self.sizes = [prod(p.shape[1:]) for p in chosen]
        weights = torch.cat([p.detach().reshape(len(p), -1) for p in chosen], dim=1)
        self.rates = torch.cat([p.new_full((p[0].numel(),), rates[id(p)]) for p in chosen])
        one = weights.new_ones(len(weights))
        zero = torch.zeros_like(weights)
        self._state = self._before = State(weights, zero, zero, 0 * one[:, None].double())
        self._factor, self._undone = one, 0 * one  # of the rate; undone steps in a row
        self._fresh = self.given_up = one < 0  # the weights are those of an undone step
        self._taken = 0
        self.leaf = weights.detach().requires_grad_()

    def __call__(self, batch: Batch, mask: Tensor | None) -> Reconstruction:
        """Apply the network with the present weights."""
        parts = self.leaf.split(self.sizes, dim=1)
        weights = {
            name: part.reshape(p.shape)
            for (name, p), part in zip(self.parameters.items(), parts, strict=True)
        }
        result: Reconstruction = functional_call(self.network, weights, (batch, mask))
        return result

    def check(self, finite: Tensor) -> None:
        """Undo the last step of slices whose values, ``(slice,)`` bool, are not finite."""
        self._undone = torch.where(finite & ~self._fresh, 0, self._undone)
        self._fresh = ~finite
        bad = ~finite & ~self.given_up
        self._state = self._before.where(bad, self._state)
        self._undone = self._undone + bad
        self._factor = torch.where(bad, 0.5 * self._factor, self._factor)
        self.given_up = self.given_up | (self._undone >= MAX_UNDONE)

    def step(self, gradient: Tensor) -> None:
        """Take a step of the slices whose last values were finite.

        Adam (Kingma & Ba, arXiv:1412.6980), as `torch.optim.Adam` computes it.

        Args:
            gradient: ``(slice, weight)``, of each slice's loss to its weights.
        """
        acts = ~self._fresh & ~self.given_up
        self._before = self._state.where(acts, self._before)
        weights, mean, square, steps = self._state
        steps = steps + 1
        mean = torch.lerp(mean, gradient, 1 - _BETAS[0])
        square = _BETAS[1] * square + (1 - _BETAS[1]) * gradient.square()
        corrections = [(1 - beta**steps).to(mean.dtype) for beta in _BETAS]
        rate = 0.5 ** (self._taken // self.halve_every) * self._factor[:, None] * self.rates
        change = mean / corrections[0] / ((square / corrections[1]).sqrt() + _EPSILON)
        stepped = State(weights - rate * change, mean, square, steps)
        self._state = stepped.where(acts, self._state)
        self._taken += 1
        self.leaf = self._state.weights.detach().requires_grad_()

    def keep(self, weights: Tensor | None = None) -> None:
        """Write the weights, or others ``(slice, weight)``, back into the network."""
        values = self._state.weights if weights is None else weights
        with torch.no_grad():
            parts = values.split(self.sizes, dim=1)
            for parameter, part in zip(self.parameters.values(), parts, strict=True):
                parameter.copy_(part.reshape(parameter.shape))


class Best:
    """The weights of each slice that predict its validation samples best.

    A slice is done after ``patience`` updates without improvement.
    """

    def __init__(self, weights: Tensor, patience: int) -> None:
        self.weights, self.patience = weights.detach(), patience
        self.losses = weights.new_full((len(weights),), torch.inf)
        self.waited = torch.zeros_like(self.losses)

    def update(self, losses: Tensor, weights: Tensor) -> None:
        """Keep the weights of the slices whose loss, of ``(slice,)``, is the lowest yet."""
        running = ~self.done
        better = running & (losses < self.losses)
        self.waited = torch.where(better, 0, self.waited + running)
        self.losses = torch.where(better, losses, self.losses)
        self.weights = torch.where(better[:, None], weights.detach(), self.weights)

    @property
    def done(self) -> Tensor:
        """Which slices have waited long enough, ``(slice,)`` bool."""
        return self.waited >= self.patience
