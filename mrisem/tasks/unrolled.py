"""The unrolled network as a task: fitted per scan, or trained over a dataset."""

from __future__ import annotations

import torch
from fastmri.losses import SSIMLoss
from torch import Tensor, nn

from mrisem.networks.unrolled import Unrolled
from mrisem.physics.fourier import center_crop
from mrisem.tasks.base import ReconstructionTask
from mrisem.tasks.fitting import FitCurves, PerScanFit, apply_each, fit_to_scans
from mrisem.tasks.guidance import Guidance, Steering
from mrisem.types import Batch, InputError, Reconstruction


class UnrolledTask(ReconstructionTask):
    """Unrolled reconstruction (method.md section 4).

    Args:
        network: the starting point of every fit, and what training over a dataset changes.
        fit: per-scan settings; None applies the network as it is.
        steering: how a prior counts.
        learning_rate: of Adam when training over a dataset.
        seed: of the split into input and loss samples.
    """

    takes_prior = True

    def __init__(
        self,
        network: Unrolled,
        fit: PerScanFit | None = None,
        steering: Steering | None = None,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.fit = fit
        self.steering = steering or Steering()
        self.learning_rate = learning_rate
        self.seed = seed
        self.ssim_loss = SSIMLoss()

    @staticmethod
    def forward_one(network: nn.Module, batch: Batch, mask: Tensor | None) -> Reconstruction:
        """Reconstruct a batch from the samples in ``mask`` (all when None)."""
        result: Reconstruction = network(batch, mask)
        return result

    def solve(self, batch: Batch) -> tuple[Reconstruction, FitCurves]:
        """Fit to the batch if asked to, then reconstruct from all samples."""
        if self.fit is None:
            return self.forward_one(self.network, batch, None), FitCurves()
        prior = self.prior_for(batch)
        guidance = None if prior is None else Guidance(prior, batch, self.steering)
        with torch.enable_grad():
            networks, curves = fit_to_scans(
                self.network, self.forward_one, batch, self.fit, guidance, self.seed
            )
        with torch.no_grad():
            result = apply_each(networks, self.forward_one, batch, None)
        if guidance is not None:
            curves.add(batch.info, self.fit.iterations, guidance.diagnose(result.image, None))
            curves.paths.append((self.fit.iterations, guidance.signature(result.image)))
        return result, curves

    def supervised_loss(self, batch: Batch) -> dict[str, Tensor]:
        """L1 and fastMRI's SSIM loss against the target, on magnitudes in the batch's scale."""
        if batch.target is None:
            raise InputError(f"training needs targets, {batch.info[0].file} has none")
        magnitude = center_crop(self.network(batch).image.abs(), batch.crop)[:, None]
        target = (batch.target / batch.scale[:, None, None])[:, None]
        data_range = target.amax((1, 2, 3))
        return {
            "l1": (magnitude - target).abs().mean(),
            "ssim_loss": self.ssim_loss(magnitude, target, data_range),
        }

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Sum and log the supervised losses."""
        losses = self.supervised_loss(batch)
        logged = {f"train/{name}": value for name, value in losses.items()}
        self.log_dict(logged, batch_size=len(batch), prog_bar=True, on_epoch=True)
        return torch.stack([*losses.values()]).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the supervised losses."""
        logged = {f"val/{name}": value for name, value in self.supervised_loss(batch).items()}
        self.log_dict(logged, batch_size=len(batch), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over the network."""
        return torch.optim.Adam(self.network.parameters(), lr=self.learning_rate)
