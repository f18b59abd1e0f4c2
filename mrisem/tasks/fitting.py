"""Fitting networks to scans: several slices at once, each with weights of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from tqdm.auto import tqdm

from mrisem.networks.adapters import LoRA
from mrisem.physics.sense import Measurement
from mrisem.physics.solvers import solve_data_consistency
from mrisem.tasks.curves import FitCurves
from mrisem.tasks.guidance import Guidance
from mrisem.tasks.objectives import Placement, gradients_at, join
from mrisem.tasks.regularisers import Regulariser
from mrisem.tasks.safeguard import Safeguard
from mrisem.tasks.samples import data_consistency_loss, split_samples
from mrisem.types import Batch, Reconstruction

Count = Annotated[int, Field(ge=1)]


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
    """

    iterations: Count = 1500
    learning_rate: float = 1e-3
    halve_every: Count = 1000
    loss_share: float | None = 0.4
    validation_share: float | None = None
    patience: Count = 50
    calibration: Literal["block", "lines"] = "block"
    lora: LoRA | None = None
    log_every: Count = 5
    progress: bool = True


class Best:
    """The weights of each slice's network that predict its validation samples best.

    A slice is done after ``patience`` updates without improvement.
    """

    def __init__(self, networks: nn.ModuleList, patience: int) -> None:
        self.networks = networks
        self.patience = patience
        self.losses = [float("inf")] * len(networks)
        self.waited = [0] * len(networks)
        self.weights: list[dict[str, Tensor]] = [{} for _ in networks]

    def update(self, losses: Tensor) -> None:
        """Keep the weights of the slices whose loss, of ``(batch,)``, is the lowest yet."""
        for index, loss in enumerate(losses.tolist()):
            if self.waited[index] >= self.patience:
                continue
            self.waited[index] += 1
            if loss < self.losses[index]:
                trained = self.networks[index].named_parameters()
                kept = {n: p.detach().clone() for n, p in trained if p.requires_grad}
                self.losses[index], self.waited[index] = loss, 0
                self.weights[index] = kept

    @property
    def all_done(self) -> bool:
        """Whether every slice has waited long enough."""
        return all(waited >= self.patience for waited in self.waited)

    def restore(self) -> None:
        """Put the best weights back."""
        for network, weights in zip(self.networks, self.weights, strict=True):
            network.load_state_dict(weights, strict=False)


@dataclass
class ScanFit:
    """The fit of one network to each slice of a batch, self-supervised.

    Each loss's gradient is taken at images and then sent through the networks together, so that the
    network is differentiated once and the share of the prior can be read off at no cost. The result
    for a slice does not depend on its neighbours in the batch.

    Args:
        networks: one a slice, fitted in place (see `copies`).
        batch: the measurements.
        seed: seed of the splits, together with file and slice.
        guidance: the semantic prior.
        placement: images at which data term and prior act.
        curves: what `run` and `finish` log.
    """

    networks: nn.ModuleList
    batch: Batch
    seed: int
    guidance: Guidance | None = None
    placement: Placement = field(default_factory=Placement)
    curves: FitCurves = field(default_factory=FitCurves)
    _first: int = 0  # iterations of earlier runs

    def run(
        self,
        settings: PerScanFit,
        regulariser: Regulariser | None = None,
        *,
        guided: bool = True,
        groups: Callable[[nn.Module], list[dict]] | None = None,
    ) -> None:
        """Fit; a further run continues.

        Args:
            settings: iterations, learning rate and so on.
            regulariser: a conventional term beside the data term.
            guided: whether the prior counts.
            groups: a network -> its parameter groups for Adam; None: all that is trainable.
        """
        guidance = self.guidance if guided else None
        mask_dc, mask_loss, mask_validation = self.split(settings)
        best = Best(self.networks, settings.patience)
        groups_of = [(groups or _trainable)(network) for network in self.networks]
        optimiser = torch.optim.Adam(
            [group for own in groups_of for group in own], lr=settings.learning_rate
        )
        safeguard = Safeguard(optimiser, groups_of)
        schedule = torch.optim.lr_scheduler.StepLR(optimiser, settings.halve_every, gamma=0.5)

        def data(image: Tensor) -> dict[str, Tensor]:
            return {"data_consistency": data_consistency_loss(self.batch, image, mask_loss)}

        info = self.batch.info
        title = f"{info[0].file} slices {[one.slice for one in info]}"
        for step in tqdm(range(settings.iterations), title, disable=not settings.progress):
            results = _results(self.networks, self.batch, mask_dc)
            values, images, gradients = gradients_at(
                results, data, regulariser, guidance, self._first + step, self.placement
            )
            safeguard.check(_finite(values, images, gradients))
            image = torch.cat([result.image.detach() for result in results])
            if mask_validation is not None:
                values["validation"] = data_consistency_loss(self.batch, image, mask_validation)
                best.update(values["validation"])
            last = best.all_done or safeguard.all_given_up or step == settings.iterations - 1
            if last or step % settings.log_every == 0:
                self.curves.add(info, self._first + step, values)
                if guidance is not None:
                    self.curves.add_image(guidance, self._first + step, image)
            if best.all_done or safeguard.all_given_up:
                break
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(images, gradients)
            safeguard.step()
            schedule.step()
        best.restore()
        self.curves.diverged = sorted({*self.curves.diverged, *safeguard.given_up})
        self._first += settings.iterations

    def split(self, settings: PerScanFit) -> tuple[Tensor, Tensor, Tensor | None]:
        """Split the samples of each slice into disjoint sets, each ``(batch, y, x)`` bool.

        They are ``mask_dc`` (the network's input and its data consistency), ``mask_loss``, and
        ``mask_validation`` where a fit may stop early.
        """
        split = partial(split_samples, self.batch, seed=self.seed, calibration=settings.calibration)
        mask, validation = self.batch.mask, None
        if settings.validation_share is not None:
            mask, validation = split(mask, settings.validation_share, "validation")
        if settings.loss_share is None:
            return mask, mask, validation
        return *split(mask, settings.loss_share, "split"), validation

    @torch.no_grad()
    def finish(self, weight: float | None) -> tuple[Reconstruction, FitCurves]:
        """Reconstruct from all samples; see `finish` for the weight."""
        result = join(_results(self.networks, self.batch, None))
        result = finish(self.batch, result, weight)
        if self.guidance is not None:
            self.curves.add_image(self.guidance, self._first, result.image, final=True)
        return result, self.curves


def finish(batch: Batch, result: Reconstruction, weight: float | None) -> Reconstruction:
    """Restore consistency with all samples: ``argmin |A x - y|^2 + weight |x - x_net|^2``.

    ``x_net`` is the image of ``result``; a weight of None leaves it as it is.
    """
    if weight is None:
        return result
    all_of_it = Measurement.of(batch)
    mu = torch.as_tensor(weight, device=result.image.device)
    image = solve_data_consistency(
        all_of_it, all_of_it.zero_filled, result.image, mu, max_iterations=30
    )
    return replace(result, image=image, iterates=(*result.iterates, image))


def copies(template: nn.Module, n: int) -> nn.ModuleList:
    """Return ``n`` networks with the template's weights; the template is left as it is."""
    return nn.ModuleList(copy.deepcopy(template) for _ in range(n))


def _results(networks: nn.ModuleList, batch: Batch, mask: Tensor | None) -> list[Reconstruction]:
    """What each network gives for its own slice from the samples in ``mask`` (None: all)."""
    return [
        network(batch.select(i), None if mask is None else mask[i : i + 1])
        for i, network in enumerate(networks)
    ]


def _finite(values: dict[str, Tensor], images: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """Whether each slice's values, images and gradients there are all finite, ``(batch,)`` bool."""
    sums = [tensor.detach().flatten(1).sum(1).abs() for tensor in (*images, *gradients)]
    return torch.stack([*values.values(), *sums]).isfinite().all(0)


def _trainable(network: nn.Module) -> list[dict]:
    return [{"params": [p for p in network.parameters() if p.requires_grad]}]
