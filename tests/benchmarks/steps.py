"""Rows of a whole guided step of a fit at the paper's sizes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from measure import Row, Setting, Spent, alternate, now, timed
from priors import (
    FULL,
    QUICK,
    TAU,
    WEIGHTS,
    encoder_alone,
    make_encoder,
    make_raw,
    plain_step,
    project,
)
from scans import simulated_batch
from torch import Tensor, nn

from mrisem.networks.adapters import LoRA, attach
from mrisem.networks.stacked import stack
from mrisem.networks.unrolled import Unrolled
from mrisem.physics.sense import Measurement
from mrisem.prior.image.prior import SemanticPrior
from mrisem.prior.prior import Prior
from mrisem.tasks.curves import FitCurves
from mrisem.tasks.fitting import PerScanFit, ScanFit
from mrisem.tasks.guidance import Guidance, Steering
from mrisem.types import Batch


class Clock(FitCurves):
    """Reads the clocks at each step of a fit, and keeps nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[Spent] = []

    def add(self, infos: tuple, iteration: int, values: dict[str, Tensor]) -> None:
        """Note the time."""
        if values and next(iter(values.values())).is_cuda:
            torch.cuda.synchronize()
        self.times.append(now())

    def add_image(self, *arguments: object, final: bool = False) -> None:
        """Leave out what is only drawn."""

    def per_step(self) -> Spent:
        """Mean of all steps but the first, which prepares things."""
        return (self.times[-1] - self.times[0]) * (1 / (len(self.times) - 1))


def fit_step(
    network: nn.Module,
    batch: Batch,
    steps: int = 3,
    prior: Prior | None = None,
    loss_share: float | None = 0.4,
) -> tuple[Spent, None]:
    """Fit a stacked network to a batch by that many steps; return what one of them spent."""
    clock, fresh = Clock(), replace(batch)  # a copy remembers no solves
    guidance = None if prior is None else Guidance(prior, fresh, Steering(0.029))
    fit = ScanFit(network, fresh, 0, guidance, curves=clock)
    fit.run(PerScanFit(iterations=steps, log_every=1, progress=False, loss_share=loss_share))
    return clock.per_step(), None


@dataclass(frozen=True)
class Paper:
    """The unrolled network of the paper's recipe, fitted through LoRA, and the scan's size."""

    side: int = 384
    n_coils: int = 8
    channels: int = 64
    levels: int = 4
    stages: int = 4
    rank: int = 8

    def network(self) -> nn.Module:
        """Make it with random weights."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = Unrolled(self.stages, self.channels, self.levels)
            attach(network, LoRA(self.rank, self.rank), torch.Generator().manual_seed(0))
        return network


def network_alone(network: nn.Module, batch: Batch) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward of the network with nothing behind it.

    Its weights move a little each time, as in a fit: the solves start near their end, not at it.
    """
    network, batch = copy.deepcopy(network), replace(batch)
    mask, _, _ = ScanFit(network, batch, 0).split(PerScanFit())
    Measurement.of(batch, mask, remember=True)
    parameters = [p for p in network.parameters() if p.requires_grad]
    shape, generator = batch.mask.shape, torch.Generator().manual_seed(0)
    gradient = torch.randn(shape, dtype=torch.complex64, generator=generator)

    def step() -> tuple[Tensor, ...]:
        gradients = torch.autograd.grad(network(batch, mask).image, parameters, gradient)
        with torch.no_grad():
            torch._foreach_add_(parameters, [g.sign() for g in gradients], alpha=-1e-3)
        return gradients

    return step


def guided_rows(setting: Setting) -> Iterator[Row]:
    """A step against its two parts alone, and against a step with the plain prior."""
    size, paper, n = setting.size((FULL, Paper(), 720), (QUICK, Paper(48, 3, 4, 2, 2, 2), 6))
    batch = simulated_batch(1, paper.n_coils, (paper.side, paper.side))
    network = paper.network()
    image = torch.rand(1, size.side, size.side, generator=torch.Generator().manual_seed(2))
    raw, float32 = make_raw(size, n), make_encoder(size)
    bank, plain = project(raw, n), plain_step(size, raw, n)
    encoders = {"float32": float32, "bfloat16": copy.deepcopy(float32).to(torch.bfloat16)}
    calls = {
        "network": timed(network_alone(network, batch)),
        "plain": timed(lambda: plain(image)),
    }
    for name, encoder in encoders.items():
        prior = SemanticPrior(encoder, bank, WEIGHTS, TAU)
        calls[name] = lambda prior=prior: fit_step(stack(network, 1), batch, prior=prior)
        alone = encoder_alone(encoder)
        calls[f"{name} encoder"] = timed(lambda alone=alone: alone(image))
    seconds, _ = alternate(min(setting.turns, 3), calls)
    for name in encoders:
        parts = seconds["network"] + seconds[f"{name} encoder"]
        what = f"guided step, {paper.side}^2, unrolled {paper.stages} x {paper.channels}, {name}"
        share = seconds[name].wall / parts.wall
        note = f"the step is {share:.2f} of the parts"
        yield Row(f"{what} encoder", "its network and encoder, each alone", seconds[name], parts,
                  note=note, asked=1 / 1.1)  # fmt: skip
        parts = seconds["network"] + seconds["plain"]
        yield Row(f"{what} encoder", "network alone and plain prior", seconds[name], parts)
