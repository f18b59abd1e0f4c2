"""Fitting of networks to scans: several slices at once, each with its own weights."""

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
    """Settings for the fit of a network to a scan (Feng et al., arXiv:2511.19641).

    Args:
        iterations: number of optimiser steps (paper: 1500).
        learning_rate: learning rate of Adam (paper: 1e-3).
        halve_every: number of steps after which the learning rate is halved (paper: 1000).
        loss_share: share of the samples for the loss, held out from the network's input (paper,
            unrolled: 0.4). None: network and loss both have all samples (paper: U-Net and INR).
        validation_share: share of the samples for early stopping, held out from network and loss as
            in zero-shot self-supervision (Yaman et al., arXiv:2102.07737). A slice keeps the
            weights that predict these samples best. None (paper): no early stopping.
        patience: number of steps without a better prediction after which a slice stops.
        calibration: samples that always stay in the network's input: ``block``, the central
            24 x 24; ``lines``, the calibration lines with all their rows (paper).
        lora: settings of low-rank factors, which alone are trained; None: all weights are trained.
        log_every: number of steps between two rows of the fitting curves.
        progress: whether to show a progress bar.
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
    """Self-supervised fit of one network to each slice of a batch.

    Minimises ``L_dc + lambda L_sem`` (Feng et al., arXiv:2511.19641, Eq. 7). The gradients of both
    terms are computed at the images, and their sum is backpropagated through the network. The
    network is differentiated once, and the strength of the prior's gradient is known. The result
    for a slice does not depend on the other slices of the batch.

    Args:
        network: network with weights for each slice (`mrisem.networks.stacked.stack`), fitted in
            place.
        batch: measured slices.
        seed: seed of the splits, together with file and slice.
        guidance: semantic prior; None: no prior.
        placement: images at which data term and prior act.
        curves: values that `run` and `finish` log.
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
        """Fit the network; a further call continues from the weights of this one.

        Args:
            settings: iterations, learning rate and other settings.
            regulariser: conventional term beside the data term; None: no such term.
            guided: whether the prior acts.
            groups: function of a network that returns parameter groups for Adam; None: all
                trainable parameters form one group.
        """
        guidance = self.guidance if guided else None
        # input, loss and validation samples are disjoint: the loss judges unseen samples only
        mask_dc, mask_loss, mask_validation = self.split(settings)
        measurement = Measurement.of(self.batch, mask_dc, remember=True)
        weights = SliceWeights(self.network, settings.learning_rate, settings.halve_every, groups)
        best = None if mask_validation is None else Best(weights.leaf, settings.patience)

        def data_term(image: Tensor) -> dict[str, Tensor]:
            return {"data_consistency": data_consistency_loss(self.batch, image, mask_loss)}

        info, steps = self.batch.info, range(settings.iterations)
        title = f"{info[0].file} slices {', '.join(str(part.slice) for part in info)}"
        for step in track(steps, title, "steps") if settings.progress else steps:
            result = weights(self.batch, mask_dc)
            values, images, gradients = gradients_at(
                result, data_term, regulariser, guidance, self._first + step, self.placement
            )
            # slices whose last step led to NaN or infinity go back to the weights before it
            weights.check(_finite(values, images, gradients))
            done = weights.given_up
            if best is not None and mask_validation is not None:
                image = result.image.detach()
                values["validation"] = data_consistency_loss(self.batch, image, mask_validation)
                best.update(values["validation"], weights.leaf)
                done = done | best.done
            is_logged = step == settings.iterations - 1 or step % settings.log_every == 0
            # On a GPU a look at `done` waits for the device: do so only when values are logged.
            is_last = (is_logged or done.is_cpu) and bool(done.all())
            if is_logged or is_last:
                values |= _residuals(measurement)
                self._log(step, values, guidance, result.image.detach())
            if is_last:
                break
            # one backward pass sends the gradients at all images through the network
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

        Returns:
            ``mask_dc`` for the network's input and its data consistency, ``mask_loss``, and
            ``mask_validation`` (None without early stopping). Without a ``loss_share`` the first
            two are the same.
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
        """Reconstruct from all samples; ``weight`` is that of the function `finish`."""
        result = finish(self.batch, self.network(self.batch), weight)
        if self.guidance is not None:
            self.curves.add_image(self.guidance, self._first, result.image, final=True)
        return result, self.curves


def finish(batch: Batch, result: Reconstruction, weight: float | None) -> Reconstruction:
    """Restore consistency with all samples: ``argmin |A x - y|^2 + weight |x - x_net|^2``.

    Args:
        batch: measured slices.
        result: reconstruction with the image ``x_net``.
        weight: mu of the data-consistency solve; None: the image is not changed.
    """
    if weight is None:
        return result
    measurement = Measurement.of(batch)
    mu = torch.as_tensor(weight, device=result.image.device)
    image = solve_data_consistency(
        measurement, measurement.zero_filled, result.image, mu, max_iterations=30
    )
    return replace(result, image=image, iterates=(*result.iterates, image))


def _residuals(measurement: Measurement) -> dict[str, Tensor]:
    """Return the largest relative residuals over a network's stages, each ``(batch,)``."""
    values = {}
    for name in ("residual", "gradient_residual"):
        residuals = [getattr(solves, name) for solves in (measurement.solves or {}).values()]
        residuals = [residual for residual in residuals if residual is not None]
        if residuals:
            values[f"solve_{name}"] = torch.stack(residuals).amax(0)
    return values


def _finite(values: dict[str, Tensor], images: list[Tensor], gradients: list[Tensor]) -> Tensor:
    """Tell for each slice whether values, images and gradients are finite: ``(batch,)`` bool."""
    # a sum is finite only if all its entries are, and costs one pass
    sums = [tensor.detach().flatten(1).sum(1).abs() for tensor in (*images, *gradients)]
    return torch.stack([*values.values(), *sums]).isfinite().all(0)
