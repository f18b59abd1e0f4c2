"""Undoes steps of a fit after which a slice's loss is not finite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MAX_UNDONE = 10  # undone steps in a row after which a slice's fit is given up


class Safeguard:
    """Steps of Adam over several slices' networks, each with parameters of its own.

    When a slice's loss or gradient is not finite, its last step is undone, with Adam's moments, and
    its learning rate is halved. The other slices take their steps.

    Args:
        optimiser: Adam over all networks.
        groups: each slice's parameter groups in it.
    """

    def __init__(self, optimiser: torch.optim.Adam, groups: Sequence[Sequence[dict]]) -> None:
        self.optimiser, self.groups = optimiser, groups
        self.given_up: set[int] = set()
        self._undone = [0] * len(groups)  # steps in a row
        self._fresh = [False] * len(groups)  # whether the weights are those of an undone step
        self._before: list[list[Tensor]] = [[] for _ in groups]

    @property
    def all_given_up(self) -> bool:
        """Whether no slice is fitted any more."""
        return len(self.given_up) == len(self.groups)

    def check(self, finite: Tensor) -> None:
        """Undo the last step of slices whose values, ``(batch,)`` bool, are not finite."""
        for index, good in enumerate(finite.tolist()):
            if good and not self._fresh[index]:
                self._undone[index] = 0
            self._fresh[index] = not good
            if not good and index not in self.given_up:
                self._undo(index)

    def step(self) -> None:
        """Take a step of the slices whose last values were finite; keep what it may undo."""
        for index in range(len(self.groups)):
            if self._fresh[index] or index in self.given_up:
                for parameter in self._parameters(index):
                    parameter.grad = None
            else:
                self._remember(index)
        self.optimiser.step()

    def _undo(self, index: int) -> None:
        if self._before[index]:
            state = self._state(index)
            with torch.no_grad():
                torch._foreach_copy_(state[: len(self._before[index])], self._before[index])
                for tensor in state[len(self._before[index]) :]:  # moments of a first step
                    tensor.zero_()
        self._undone[index] += 1
        for group in self.groups[index]:
            group["lr"] *= 0.5
        if self._undone[index] >= MAX_UNDONE:
            self.given_up.add(index)

    @torch.no_grad()
    def _remember(self, index: int) -> None:
        state = self._state(index)
        if len(self._before[index]) == len(state):
            torch._foreach_copy_(self._before[index], state)
        else:
            self._before[index] = [tensor.detach().clone() for tensor in state]

    def _parameters(self, index: int) -> list[Tensor]:
        return [parameter for group in self.groups[index] for parameter in group["params"]]

    def _state(self, index: int) -> list[Tensor]:
        """Return weights, then moments and counts of steps: these only after a first step."""
        parameters = self._parameters(index)
        moments = [self.optimiser.state.get(parameter, {}) for parameter in parameters]
        names = ("step", "exp_avg", "exp_avg_sq")
        return [*parameters, *(state[n] for state in moments for n in names if n in state)]
