"""What every method is to Lightning: a task that turns batches into reconstructions."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytorch_lightning as pl
import torch

from mrisem.errors import InputError
from mrisem.prior.prior import Prior
from mrisem.tasks.curves import FitCurves
from mrisem.tasks.guidance import Guidance, Steering
from mrisem.types import Batch, FailedScan, Reconstruction


@dataclass(frozen=True)
class Prediction:
    """What a task hands to the callbacks for one batch; ``seconds``: wall time per slice."""

    batch: Batch
    reconstruction: Reconstruction
    seconds: float
    curves: FitCurves


class ReconstructionTask(pl.LightningModule):
    """Base of all tasks; a subclass says how one batch is reconstructed.

    Attributes:
        priors: acquisition -> semantic prior; filled by the embedding bank's callback and empty
            without a prior. A plain dict: neither encoder nor bank enters the state_dict.
        takes_prior: whether the method can be guided.
    """

    takes_prior = False

    def __init__(self, steering: Steering | None = None) -> None:
        super().__init__()
        self.steering = steering or Steering()
        self.priors: dict[str, Prior] = {}

    def solve(self, batch: Batch) -> tuple[Reconstruction, FitCurves]:
        """Reconstruct a batch; the curves are empty when nothing was fitted."""
        raise NotImplementedError

    def guide(self, batch: Batch) -> Guidance | None:
        """Return the guidance of a batch by the bank of its acquisition; None without a prior."""
        if not self.priors:
            return None
        acquisition = batch.info[0].acquisition
        if acquisition not in self.priors:
            raise InputError(f"no bank for acquisition {acquisition}, only {sorted(self.priors)}")
        return Guidance(self.priors[acquisition], batch, self.steering)

    def predict_step(
        self, batch: Batch | FailedScan, batch_idx: int = 0
    ) -> Prediction | FailedScan:
        """Reconstruct one batch and take the time."""
        if isinstance(batch, FailedScan):
            return batch
        start = time.perf_counter()
        reconstruction, curves = self.solve(batch)
        if batch.masked_kspace.is_cuda:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / len(batch)
        return Prediction(batch, reconstruction, seconds, curves)
