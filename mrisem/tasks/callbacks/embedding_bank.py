"""Callback that gives a task its semantic priors before anything is fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from mrisem.prior.prior import Prior


class EmbeddingBankCallback(pl.Callback):
    """Gives a task its priors, one for each acquisition, before anything is fitted.

    Args:
        make_priors: function of a device that returns acquisition -> prior. It loads the encoder,
            and loads each bank from the cache or builds it under a lock: of several processes one
            builds a bank and the others load it.
    """

    def __init__(self, make_priors: Callable[[torch.device], Mapping[str, Prior]]) -> None:
        self.make_priors = make_priors

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Build or load the banks on the device of the task, before training over a dataset."""
        pl_module.priors = dict(self.make_priors(pl_module.device))

    # the same before scans are reconstructed
    on_predict_start = on_fit_start
