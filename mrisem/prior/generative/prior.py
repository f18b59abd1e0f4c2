"""Prior of the generative route: a loss whose gradient is a generator's pull."""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor

from mrisem.prior.generative.generator import Generator
from mrisem.prior.jitter import Jitter
from mrisem.prior.prior import Prior


class GenerativePrior(Prior):
    """Loss with the value ``|p|^2 / 2 N`` and the gradient ``p / N`` at the prepared image.

    p is the generator's pull and N the number of its values. The pull is a constant for autograd:
    the Jacobian of the network is left out (Poole et al., arXiv:2209.14988, Eq. 3; Mardani et al.,
    arXiv:2305.04391). Of a projection ``p = x - P(x)`` this is the gradient of
    ``|x - P|^2 / 2 N`` with P held fixed. The class is not an nn.Module, so that checkpoints of a
    task do not contain the generator.

    Args:
        generator: frozen generator on the device of the images.
        acquisition: fastMRI's name of the acquisition of the images.
        jitter: shifts and noise over which the loss is averaged; None: no jitter.
    """

    def __init__(
        self, generator: Generator, acquisition: str, jitter: Jitter | None = None
    ) -> None:
        self.generator, self.acquisition, self.jitter = generator, acquisition, jitter

    def losses(self, magnitude: Tensor, iteration: int = 0) -> dict[str, Tensor]:
        """See `Prior`; ``semantic`` is the loss."""
        copies = 1 if self.jitter is None else self.jitter.copies
        images = magnitude if self.jitter is None else self.jitter(magnitude, iteration)
        state = self.generator.prepare(images)
        with torch.no_grad():
            pull = self.generator.pull(state.detach(), self.acquisition, iteration, copies)
        # zero as a value, p as a gradient
        change = pull * (state - state.detach())
        mean = "(image copies) channel y x -> image"
        return {"semantic": reduce(change + pull.square() / 2, mean, "mean", copies=copies)}
