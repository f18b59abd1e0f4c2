"""Base of all methods for Lightning: a task that turns batches into reconstructions."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import Tensor

from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop
from mrisem.prior.prior import Prior
from mrisem.tasks.curves import FitCurves
from mrisem.tasks.guidance import Guidance, Steering
from mrisem.types import Batch, FailedScan, Reconstruction

_NO_MEMORY = "can't allocate memory"  # torch's message for a CPU; for a GPU there is a class


@dataclass(frozen=True)
class Prediction:
    """Result of a task for one batch, for the callbacks.

    Args:
        batch: reconstructed slices.
        reconstruction: their images.
        seconds: wall time per slice.
        curves: values that were logged during the fit.
    """

    batch: Batch
    reconstruction: Reconstruction
    seconds: float
    curves: FitCurves

    @property
    def file(self) -> str:
        """Name of the input file."""
        return self.batch.info[0].file

    @property
    def magnitude(self) -> Tensor:
        """Magnitudes ``(batch, Y, X)`` of the target's size, in the file's units."""
        image = center_crop(self.reconstruction.image.abs(), self.batch.crop)
        return image * self.batch.scale[:, None, None]

    @property
    def failed(self) -> list[FailedScan]:
        """Slices whose fit was stopped; their last finite image is kept."""
        rule = "its fit did not stay finite at any learning rate; its last finite image is kept"
        numbers = [self.batch.info[index].slice for index in self.curves.diverged]
        return [FailedScan(self.file, rule, tuple(numbers))] if numbers else []


class ReconstructionTask(pl.LightningModule):
    """Base class of all tasks; a subclass implements `solve` for one batch.

    Attributes:
        priors: acquisition -> semantic prior; filled by `EmbeddingBankCallback`, empty without a
            prior. It is a plain dict, so that checkpoints contain neither encoder nor bank.
        takes_prior: whether the method can be guided by a prior.
    """

    takes_prior = False

    def __init__(self, steering: Steering | None = None) -> None:
        super().__init__()
        self.steering = steering or Steering()
        self.priors: dict[str, Prior] = {}

    def setup(self, stage: str) -> None:
        """Raise InputError for a precision that the method cannot use."""
        network = getattr(self, "network", None)
        if self.trainer.precision != "32-true" and not getattr(
            network, "mixed_precision", network is not None
        ):
            raise InputError(
                f"trainer.precision={self.trainer.precision} is for model=unet, unrolled and inr, "
                f"got {type(network or self).__name__}; set trainer.precision=32-true"
            )

    def solve(self, batch: Batch) -> tuple[Reconstruction, FitCurves]:
        """Reconstruct a batch; the curves are empty if nothing was fitted."""
        raise NotImplementedError

    def guide(self, batch: Batch) -> Guidance | None:
        """Return the guidance of a batch by the prior of its acquisition; None without a prior."""
        if not self.priors:
            return None
        acquisition = batch.info[0].acquisition
        if acquisition not in self.priors:
            raise InputError(f"no bank for acquisition {acquisition}, only {sorted(self.priors)}")
        return Guidance(self.priors[acquisition], batch, self.steering)

    def predict_step(
        self, batch: Batch | FailedScan, batch_idx: int = 0
    ) -> list[Prediction | FailedScan]:
        """Reconstruct one batch and measure the time; if memory is short, in halves."""
        if isinstance(batch, FailedScan):
            return [batch]
        return [*batch.failed, *self._predict(batch)]

    def _predict(self, batch: Batch) -> list[Prediction]:
        """Reconstruct a batch; when it does not fit into memory, reconstruct each half."""
        n, start = len(batch), time.perf_counter()
        try:
            reconstruction, curves = self.solve(batch)
            # a GPU works asynchronously: wait for it before the time is read
            if batch.masked_kspace.is_cuda:
                torch.cuda.synchronize()
            return [Prediction(batch, reconstruction, (time.perf_counter() - start) / n, curves)]
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and _NO_MEMORY not in str(error):
                raise
            if n == 1:
                raise InputError(
                    f"one slice of {batch.info[0].file} must fit into memory, but does not "
                    f"({str(error).splitlines()[0]}); set a smaller scale or encoder"
                ) from error
        # after the handler, since its traceback keeps tensors in memory
        torch.cuda.empty_cache()
        # no slice depends on another: halves give the same images
        half = n // 2
        warnings.warn(
            f"out of memory with {n} slices at once, continues with {half}; set "
            f"scale.fit.slices_at_once={half}",
            stacklevel=2,
        )
        halves = (batch.select(slice(half)), batch.select(slice(half, n)))
        return [prediction for part in halves for prediction in self._predict(part)]
