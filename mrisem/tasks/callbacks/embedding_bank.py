"""Gives a task its semantic priors before anything is fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from mrisem.prior.prior import Prior


class EmbeddingBankCallback(pl.Callback):
    """Gives a task its priors before anything is fitted: one for each acquisition.

    Args:
        make_priors: device -> acquisition -> prior; it loads the encoder and finds each bank in the
            cache, or builds it under a lock with a progress bar, so that of several processes one
            builds and the others load.
    """

    def __init__(self, make_priors: Callable[[torch.device], Mapping[str, Prior]]) -> None:
        self.make_priors = make_priors

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Build or load the banks on the task's device, before training over a dataset."""
        pl_module.priors = dict(self.make_priors(pl_module.device))

    # before scans are reconstructed
    on_predict_start = on_fit_start
