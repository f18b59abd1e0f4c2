"""Collects reconstructions in memory, without the k-space that they were made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl

from mrisem.tasks.base import Prediction
from mrisem.tasks.samples import data_consistency_residual
from mrisem.types import FailedScan, SliceInfo


@dataclass(frozen=True)
class Collected:
    """One reconstructed slice.

    Args:
        info: where it comes from.
        image: ``(Y, X)`` float32 magnitude in the file's units.
        data_consistency: relative residual of its samples.
        seconds: wall time.
    """

    info: SliceInfo
    image: np.ndarray
    data_consistency: float
    seconds: float


class Collector(pl.Callback):
    """Keeps what each batch gives: slices, the rows of their fits' curves, and what failed."""

    def __init__(self) -> None:
        self.slices: list[Collected] = []
        self.curves: list[tuple[str, int, int, str, float]] = []
        self.failed: list[FailedScan] = []

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Keep the slices of a batch."""
        for output in outputs:
            if isinstance(output, FailedScan):
                self.failed.append(output)
            else:
                self._keep(output)

    def _keep(self, prediction: Prediction) -> None:
        images = prediction.magnitude.float().cpu().numpy()
        residual = data_consistency_residual(prediction.batch, prediction.reconstruction.image)
        for info, image, value in zip(
            prediction.batch.info, images, residual.tolist(), strict=True
        ):
            self.slices.append(Collected(info, image, value, prediction.seconds))
        self.curves += prediction.curves.rows
        self.failed += prediction.failed
