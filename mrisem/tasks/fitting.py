"""Fitting a network to one scan: several slices at once, each with weights of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mrisem.physics.masks import split_mask, stable_seed
from mrisem.physics.sense import SenseOperator
from mrisem.tasks.guidance import Guidance
from mrisem.tasks.losses import data_consistency_loss
from mrisem.types import Batch, Reconstruction, SliceInfo

Forward = Callable[[nn.Module, Batch, Tensor | None], Reconstruction]


@dataclass(frozen=True)
class PerScanFit:
    """How a network is fitted to a scan (method.md section 4, column "Unrolled").

    Args:
        iterations: optimiser steps (paper: 1500).
        learning_rate: of Adam (paper: 1e-3).
        halve_every: steps after which the learning rate is halved (paper: 1000).
        loss_share: share of the samples held out for the loss (paper: 0.4).
        log_every: steps between two rows of the fitting curves.
        progress: show a progress bar.
    """

    iterations: int = 1500
    learning_rate: float = 1e-3
    halve_every: int = 1000
    loss_share: float = 0.4
    log_every: int = 5
    progress: bool = True


@dataclass
class FitCurves:
    """What was logged while a batch was fitted.

    Args:
        rows: of ``fit.csv``: file, slice, iteration, name, value.
        zero_filled: signature of the zero-filled images, level -> ``(batch, feature)``.
        paths: the reconstructions' signatures, oldest first: iteration, level -> the same.
        bank: signature of the bank, level -> positives, negatives.
    """

    rows: list[tuple[str, int, int, str, float]] = field(default_factory=list)
    zero_filled: dict[str, Tensor] = field(default_factory=dict)
    paths: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)
    bank: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def add(self, infos: tuple[SliceInfo, ...], iteration: int, values: dict[str, Tensor]) -> None:
        """Add one row for each slice and value; values are ``(batch,)``."""
        for name, value in values.items():
            for info, number in zip(infos, value.tolist(), strict=True):
                self.rows.append((info.file, info.slice, iteration, name, number))


def fit_to_scans(
    template: nn.Module,
    forward: Forward,
    batch: Batch,
    settings: PerScanFit,
    guidance: Guidance | None,
    seed: int,
) -> tuple[nn.ModuleList, FitCurves]:
    """Fit a copy of ``template`` to each slice of a batch, self-supervised.

    The samples are split once, per slice, into disjoint ``mask_dc`` (the network's input and data
    consistency) and ``mask_loss``. Each loss's gradient is taken at the image and then sent through
    the networks together, so that the network is differentiated once and the share of the prior can
    be read off at no cost. The result for a slice does not depend on its neighbours in the batch.

    Args:
        template: the network to start from; it is left as it is.
        forward: how a network reconstructs a batch of one from the part of it in a mask.
        batch: the measurements.
        settings: iterations, learning rate and so on.
        guidance: the semantic prior, or None.
        seed: of the split, together with file and slice.

    Returns:
        the fitted networks, one a slice, and the curves.
    """
    networks = nn.ModuleList(copy.deepcopy(template) for _ in range(len(batch)))
    mask_dc, mask_loss = _split(batch, settings.loss_share, seed)
    optimiser = torch.optim.Adam(networks.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, settings.halve_every, gamma=0.5)
    curves = FitCurves()
    if guidance is not None:
        curves.bank = guidance.prior.bank_signature()
        zero_filled = SenseOperator.of(batch).adjoint(batch.masked_kspace)
        curves.zero_filled = guidance.signature(zero_filled)
    title = f"{batch.info[0].file} slices {[i.slice for i in batch.info]}"
    for iteration in tqdm(range(settings.iterations), title, disable=not settings.progress):
        image = apply_each(networks, forward, batch, mask_dc).image
        values, gradient = _gradient(batch, image, mask_loss, guidance, iteration)
        optimiser.zero_grad(set_to_none=True)
        image.backward(gradient)
        optimiser.step()
        schedule.step()
        if iteration % settings.log_every == 0 or iteration == settings.iterations - 1:
            curves.add(batch.info, iteration, values)
            if guidance is not None:
                curves.add(batch.info, iteration, guidance.diagnose(image, iteration))
                curves.paths.append((iteration, guidance.signature(image)))
    return networks, curves


def apply_each(
    networks: nn.ModuleList, forward: Forward, batch: Batch, mask: Tensor | None
) -> Reconstruction:
    """Reconstruct each slice with its own network."""
    results = [
        forward(network, batch.select(i), None if mask is None else mask[i : i + 1])
        for i, network in enumerate(networks)
    ]
    stages = zip(*(r.iterates for r in results), strict=True)
    return Reconstruction(
        torch.cat([r.image for r in results]), tuple(torch.cat(stage) for stage in stages)
    )


def _gradient(
    batch: Batch, image: Tensor, mask_loss: Tensor, guidance: Guidance | None, iteration: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the named losses and the gradient of their weighted sum with respect to the image."""
    leaf = image.detach().requires_grad_()
    data = data_consistency_loss(batch, leaf, mask_loss)
    (gradient,) = torch.autograd.grad(data.sum(), leaf)
    values = {"data_consistency": data.detach()}
    if guidance is not None:
        semantic, push = guidance(image, gradient, iteration)
        values |= semantic
        gradient = gradient + push
    return values, gradient


def _split(batch: Batch, loss_share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split each slice's samples by a generator of its own (run's seed, file, slice)."""
    pairs = []
    for index, info in enumerate(batch.info):
        generator = torch.Generator().manual_seed(stable_seed("split", info.file, info.slice, seed))
        mask = batch.mask[index : index + 1].cpu()
        pairs.append(split_mask(mask, loss_share=loss_share, generator=generator))
    mask_dc, mask_loss = (torch.cat(side) for side in zip(*pairs, strict=True))
    return mask_dc.to(batch.mask.device), mask_loss.to(batch.mask.device)
