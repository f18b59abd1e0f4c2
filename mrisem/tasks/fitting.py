"""Fitting networks to scans: several slices at once, each with weights of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mrisem.errors import InputError
from mrisem.networks.adapters import LoRA
from mrisem.tasks.curves import FitCurves
from mrisem.tasks.early_stopping import Best
from mrisem.tasks.guidance import Guidance
from mrisem.tasks.losses import data_consistency_loss
from mrisem.tasks.objectives import gradients_at
from mrisem.tasks.placement import Placement
from mrisem.tasks.regularisers import Regulariser
from mrisem.tasks.splits import split_samples
from mrisem.types import Batch, Reconstruction


@dataclass(frozen=True)
class PerScanFit:
    """How a network is fitted to a scan (Feng et al., arXiv:2511.19641).

    Args:
        iterations: optimiser steps (paper: 1500).
        learning_rate: of Adam (paper: 1e-3).
        halve_every: steps after which the learning rate is halved (paper: 1000).
        loss_share: share of the samples held out for the loss, which the network does not see
            (paper, unrolled: 0.4). None: network and loss both have all samples (paper: U-Net; INR,
            which sees none).
        validation_share: share of the samples that neither network nor loss have, to stop early on,
            as zero-shot self-supervision does (Yaman et al., arXiv:2102.07737). None (paper): fit
            to the end. A slice keeps the weights that predict these samples best.
        patience: steps without a better prediction of them after which a slice is done.
        calibration: samples that stay in the network's input whatever is held out: ``block``, the
            central 24 x 24; or ``lines``, the calibration lines with all their rows (paper).
        lora: train low-rank factors only; None: all weights.
        log_every: steps between two rows of the fitting curves.
        progress: show a progress bar.

    Raises:
        InputError: a number is out of its range.
    """

    iterations: int = 1500
    learning_rate: float = 1e-3
    halve_every: int = 1000
    loss_share: float | None = 0.4
    validation_share: float | None = None
    patience: int = 50
    calibration: Literal["block", "lines"] = "block"
    lora: LoRA | None = None
    log_every: int = 5
    progress: bool = True

    def __post_init__(self) -> None:
        """Check the counts; the shares are checked where the samples are split."""
        for name in ("iterations", "halve_every", "patience", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"fit.{name} must be at least 1, got {getattr(self, name)}")
        if self.calibration not in ("block", "lines"):
            raise InputError(f"fit.calibration must be block or lines, got {self.calibration!r}")


@dataclass
class ScanFit:
    """The fit of one network to each slice of a batch, self-supervised.

    The samples are split once, per slice, into disjoint sets: ``mask_dc`` (the network's input and
    its data consistency), ``mask_loss`` and, for early stopping, ``mask_validation``. Each loss's
    gradient is taken at images and then sent through the networks together, so that the network
    is differentiated once and the share of the prior can be read off at no cost. The result for a
    slice does not depend on its neighbours in the batch.

    Args:
        networks: one a slice, fitted in place (see `copies`).
        batch: the measurements.
        settings: iterations, learning rate and so on.
        seed: of the split, together with file and slice.
        curves: where it is logged.
        placement: images at which data term and prior act.
    """

    networks: nn.ModuleList
    batch: Batch
    settings: PerScanFit
    seed: int
    curves: FitCurves = field(default_factory=FitCurves)
    placement: Placement = field(default_factory=Placement)

    def run(
        self,
        regulariser: Regulariser | None = None,
        guidance: Guidance | None = None,
        groups: Callable[[nn.Module], list[dict]] | None = None,
        first: int = 0,
    ) -> None:
        """Fit.

        Args:
            regulariser: a conventional term beside the data term.
            guidance: the semantic prior.
            groups: a network -> its parameter groups for Adam; None: all that is trainable.
            first: number of the first iteration in the curves.
        """
        settings, batch = self.settings, self.batch
        mask_dc, mask_loss, mask_validation = self._split()
        data = partial(_data_term, batch, mask_loss)
        best = None if mask_validation is None else Best(self.networks, settings.patience)
        optimiser = torch.optim.Adam(
            [g for network in self.networks for g in (groups or _trainable)(network)],
            lr=settings.learning_rate,
        )
        schedule = torch.optim.lr_scheduler.StepLR(optimiser, settings.halve_every, gamma=0.5)
        for iteration in self._iterations(first):
            results = _results(self.networks, batch, mask_dc)
            values, images, gradients = gradients_at(
                results, data, regulariser, guidance, iteration, self.placement
            )
            image = torch.cat([result.image.detach() for result in results])
            if best is not None and mask_validation is not None:
                held_out = data_consistency_loss(batch, image, mask_validation)
                values["validation"] = held_out
                best.update(held_out)
            done = best is not None and best.all_done
            step = iteration - first
            if done or step % settings.log_every == 0 or step == settings.iterations - 1:
                self._log(iteration, image, values, guidance)
            if done:
                break
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(images, gradients)
            optimiser.step()
            schedule.step()
        if best is not None:
            best.restore()

    def _iterations(self, first: int) -> Iterator[int]:
        slices = [info.slice for info in self.batch.info]
        title = f"{self.batch.info[0].file} slices {slices}"
        steps = range(first, first + self.settings.iterations)
        yield from tqdm(steps, title, disable=not self.settings.progress)

    def _log(
        self, iteration: int, image: Tensor, values: dict[str, Tensor], guidance: Guidance | None
    ) -> None:
        self.curves.add(self.batch.info, iteration, values)
        if guidance is not None:
            self.curves.add_image(self.batch, iteration, image, guidance, final=False)

    def _split(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return ``mask_dc``, ``mask_loss`` and ``mask_validation``, each ``(batch, y, x)``."""
        split = partial(
            split_samples,
            self.batch,
            seed=self.seed,
            calibration=self.settings.calibration,
        )
        mask, validation = self.batch.mask, None
        if self.settings.validation_share is not None:
            share = self.settings.validation_share
            mask, validation = split(mask, share=share, purpose="validation")
        if self.settings.loss_share is None:
            return mask, mask, validation
        left, loss = split(mask, share=self.settings.loss_share, purpose="split")
        return left, loss, validation


def copies(template: nn.Module, n: int) -> nn.ModuleList:
    """Return ``n`` networks with the template's weights; the template is left as it is."""
    return nn.ModuleList(copy.deepcopy(template) for _ in range(n))


def apply_each(networks: nn.ModuleList, batch: Batch, mask: Tensor | None) -> Reconstruction:
    """Reconstruct each slice with its own network from the samples in ``mask`` (None: all)."""
    results = _results(networks, batch, mask)
    iterates = zip(*(r.iterates for r in results), strict=True)
    outputs = zip(*(r.network_outputs for r in results), strict=True)
    return Reconstruction(
        torch.cat([r.image for r in results]),
        tuple(torch.cat(images) for images in iterates),
        tuple(torch.cat(images) for images in outputs),
    )


def _results(networks: nn.ModuleList, batch: Batch, mask: Tensor | None) -> list[Reconstruction]:
    """What each network gives for its own slice."""
    return [
        network(batch.select(i), None if mask is None else mask[i : i + 1])
        for i, network in enumerate(networks)
    ]


def _data_term(batch: Batch, mask_loss: Tensor, image: Tensor) -> dict[str, Tensor]:
    return {"data_consistency": data_consistency_loss(batch, image, mask_loss)}


def _trainable(network: nn.Module) -> list[dict]:
    return [{"params": [p for p in network.parameters() if p.requires_grad]}]
