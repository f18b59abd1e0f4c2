"""Fitting networks to scans: several slices at once, each with weights of its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mrisem.networks.adapters import LoRA
from mrisem.physics.sense import Measurement
from mrisem.physics.solvers import solve_data_consistency
from mrisem.progress import track
from mrisem.tasks.curves import FitCurves
from mrisem.tasks.guidance import Guidance
from mrisem.tasks.objectives import Placement, gradients_at
from mrisem.tasks.regularisers import Regulariser
from mrisem.tasks.samples import data_consistency_loss, split_samples
from mrisem.tasks.weights import Best, Groups, SliceWeights
from mrisem.types import Batch, Reconstruction

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class PerScanFit:
    """How a network is fitted to a scan (Feng et al., arXiv:2511.19641).

    Args:
        iterations: optimiser steps (paper: 1500).
        learning_rate: learning rate of Adam (paper: 1e-3).
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


@dataclass
class ScanFit:
    """The fit of one network to each slice of a batch, self-supervised.

    Each loss's gradient is taken at images and then sent through the network, so that this is
    differentiated once and the share of the prior can be read off at no cost. The result for a
    slice does not depend on its neighbours in the batch.

    Args:
        network: has weights for each slice (`mrisem.networks.stacked.stack`), fitted in place.
        batch: the measurements.
        seed: seed of the splits, together with file and slice.
        guidance: the semantic prior.
        placement: images at which data term and prior act.
        curves: what `run` and `finish` log.
    """

    network: nn.Module
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
        groups: Groups | None = None,
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
        seen = Measurement.of(self.batch, mask_dc, remember=True)
        weights = SliceWeights(self.network, settings.learning_rate, settings.halve_every, groups)
        best = None if mask_validation is None else Best(weights.leaf, settings.patience)

        def data(image: Tensor) -> dict[str, Tensor]:
            return {"data_consistency": data_consistency_loss(self.batch, image, mask_loss)}

        info, steps = self.batch.info, range(settings.iterations)
        title = f"{info[0].file} slices {', '.join(str(part.slice) for part in info)}"
        for step in track(steps, title, "steps") if settings.progress else steps:
            result = weights(self.batch, mask_dc)
            values, images, gradients = gradients_at(
                result, data, regulariser, guidance, self._first + step, self.placement
            )
            weights.check(_finite(values, images, gradients))
            done = weights.given_up
            if best is not None and mask_validation is not None:
                image = result.image.detach()
                values["validation"] = data_consistency_loss(self.batch, image, mask_validation)
                best.update(values["validation"], weights.leaf)
                done = done | best.done
            logged = step == settings.iterations - 1 or step % settings.log_every == 0
            ends = (logged or done.is_cpu) and bool(done.all())  # else no value leaves a GPU
            if logged or ends:
                values |= _residuals(seen)
                self._log(step, values, guidance, result.image.detach())
            if ends:
                break
            weights.step(*torch.autograd.grad(images, weights.leaf, gradients))
        weights.keep(None if best is None else best.weights)
        given_up = weights.given_up.nonzero().flatten().tolist()
        self.curves.diverged = sorted({*self.curves.diverged, *given_up})
        self._first += settings.iterations

    def _log(
        self, step: int, values: dict[str, Tensor], guidance: Guidance | None, image: Tensor
    ) -> None:
        iteration = self._first + step
        self.curves.add(self.batch.info, iteration, values)
        if guidance is not None:
            self.curves.add_image(guidance, iteration, image)

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
        result = finish(self.batch, self.network(self.batch), weight)
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


def _residuals(seen: Measurement) -> dict[str, Tensor]:
    """Largest relative residual of the solves of a network's stages, each ``(batch,)``."""
    values = {}
    for name in ("residual", "gradient_residual"):
        each = [getattr(solves, name) for solves in (seen.solves or {}).values()]
        each = [residual for residual in each if residual is not None]
        if each:
            values[f"solve_{name}"] = torch.stack(each).amax(0)
    return values


def _finite(values: dict[str, Tensor], images: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """Whether each slice's values, images and gradients there are all finite, ``(batch,)`` bool."""
    sums = [tensor.detach().flatten(1).sum(1).abs() for tensor in (*images, *gradients)]
    return torch.stack([*values.values(), *sums]).isfinite().all(0)
