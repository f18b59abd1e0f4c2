"""Task of a network that is applied, fitted to each scan, or trained over a dataset."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.networks.adapters import attach
from mrisem.networks.compiled import Mode, compile_network
from mrisem.networks.stacked import stack
from mrisem.physics.masks import stable_seed
from mrisem.tasks.base import ReconstructionTask
from mrisem.tasks.curves import FitCurves
from mrisem.tasks.fitting import PerScanFit, ScanFit, finish
from mrisem.tasks.guidance import Steering
from mrisem.tasks.objectives import Objective, Placement, gradients_at
from mrisem.tasks.regularisers import Regulariser
from mrisem.types import Batch, FailedScan, Reconstruction


class NetworkTask(ReconstructionTask):
    """Task of a U-Net, an unrolled network, a VarNet, or another module of the same interface.

    Args:
        network: module ``(batch, mask | None) -> Reconstruction``. Every fit starts from its
            weights; training over a dataset changes them.
        fit: settings of the fit to each scan; None: the network is applied without a fit.
        final_lambda: weight mu of a last data-consistency solve,
            ``argmin |A x - y|^2 + mu |x - x_net|^2`` (paper: 0.5 for the U-Net); None: no solve.
        regulariser: conventional term beside the data term, in fits and in training.
        steering: settings of the prior's influence, in fits and in training.
        objective: loss terms of training over a dataset; None: the task cannot train.
        learning_rate: learning rate of Adam in training over a dataset.
        seed: seed of the split into input and loss samples, and of LoRA's factors.
        loss_on: images at which the data loss acts: ``image`` or ``stages`` (see `Placement`).
        prior_on: images at which the prior acts: ``image``, ``network`` or ``stages`` (see
            `Placement`).
        compile: mode of torch.compile; None: the network is not compiled.
    """

    def __init__(
        self,
        network: nn.Module,
        fit: PerScanFit | None = None,
        final_lambda: float | None = None,
        regulariser: Regulariser | None = None,
        steering: Steering | None = None,
        objective: Objective | None = None,
        learning_rate: float = 1e-3,
        seed: int = 0,
        loss_on: Literal["image", "stages"] = "image",
        prior_on: Literal["image", "network", "stages"] = "image",
        compile: Mode | None = None,
    ) -> None:
        super().__init__(steering)
        self.network = network
        self.fit = fit
        self.final_lambda = final_lambda
        self.regulariser = regulariser
        self.objective = objective
        self.learning_rate = learning_rate
        self.seed = seed
        self.placement = Placement(loss_on, prior_on)
        self.compile_mode = compile
        if compile is not None and fit is None:
            compile_network(network, compile)
        self.takes_prior = fit is not None or objective is not None

    def solve(self, batch: Batch) -> tuple[Reconstruction, FitCurves]:
        """Fit the network to the batch if ``fit`` is set; reconstruct from all samples."""
        if self.fit is None:
            return finish(batch, self.network(batch), self.final_lambda), FitCurves()
        # the network of the task stays as it is: every batch starts from the same weights
        template = copy.deepcopy(self.network)
        if self.fit.lora is not None:
            generator = torch.Generator().manual_seed(stable_seed("lora", self.seed))
            attach(template, self.fit.lora, generator)
        network = stack(template, len(batch))
        if self.compile_mode is not None:
            compile_network(network, self.compile_mode)
        fit = ScanFit(network, batch, self.seed, self.guide(batch), self.placement)
        with torch.enable_grad():
            fit.run(self.fit, self.regulariser)
        return fit.finish(self.final_lambda)

    def training_step(self, batch: Batch | FailedScan, batch_idx: int) -> Tensor | None:
        """Log the loss terms; return a scalar with their gradient, None for a failed scan."""
        if isinstance(batch, FailedScan):
            return None
        values, scalar = self._evaluate(batch)
        logged = {f"train/{name}": value.mean() for name, value in values.items()}
        self.log_dict(logged, batch_size=len(batch), prog_bar=True, on_epoch=True)
        return scalar

    def validation_step(self, batch: Batch | FailedScan, batch_idx: int) -> None:
        """Log the loss terms of the objective on validation slices."""
        if isinstance(batch, FailedScan):
            return
        result, terms = self._objective(self.network, batch, 0, self.seed)
        logged = {f"val/{name}": value.mean() for name, value in terms(result.image).items()}
        self.log_dict(logged, batch_size=len(batch), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Make Adam with a learning rate that falls to zero along half a cosine."""
        optimizer = torch.optim.Adam(self.network.parameters(), lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)  # a resumed run may have more
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (1 + math.cos(math.pi * min(1.0, step / steps))) / 2
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _evaluate(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return the loss terms, and a scalar whose gradient is that of the loss."""
        result, terms = self._objective(self.network, batch, self.current_epoch, self.seed)
        values, images, gradients = gradients_at(
            result, terms, self.regulariser, self.guide(batch), self.global_step, self.placement
        )
        # Lightning needs a scalar: Re <g, x> has the gradient g with respect to the image x
        products = [
            torch.linalg.vecdot(gradient.flatten(), image.flatten()).real
            for image, gradient in zip(images, gradients, strict=True)
        ]
        return values, torch.stack(products).sum() / len(batch)

    @property
    def _objective(self) -> Objective:
        if self.objective is None:
            raise InputError("training over a dataset needs an objective; set objective=supervised")
        return self.objective
