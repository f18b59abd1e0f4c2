"""Gives a task its semantic priors before anything is fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytorch_lightning as pl
import torch

from mrisem.prior.prior import Prior
from mrisem.tasks.base import ReconstructionTask


class EmbeddingBankCallback(pl.Callback):
    """Gives a task its priors before anything is fitted: one for each acquisition.

    Args:
        make_priors: device -> acquisition -> prior; it loads the encoder and finds each bank in the
            cache, or builds it under a lock with a progress bar, so that of several processes one
            builds and the others load.
    """

    def __init__(self, make_priors: Callable[[torch.device], Mapping[str, Prior]]) -> None:
        self.make_priors = make_priors

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before scans are reconstructed."""
        self._give(pl_module)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before training over a dataset."""
        self._give(pl_module)

    def _give(self, pl_module: pl.LightningModule) -> None:
        """Build or load the banks on the task's device.

        Raises:
            TypeError: when the module is no `ReconstructionTask`.
        """
        if not isinstance(pl_module, ReconstructionTask):
            raise TypeError(
                f"a prior guides a ReconstructionTask, got a {type(pl_module).__name__}"
            )
        pl_module.priors = dict(self.make_priors(pl_module.device))
