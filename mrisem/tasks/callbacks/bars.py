"""Shows how far a run is: over all scans, or over all epochs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl

from mrisem.progress import Bar, progress, silence
from mrisem.types import FailedScan


class Bars(pl.callbacks.ProgressBar):
    """A bar over the whole run in place of Lightning's; what a scan's fit shows stands below it.

    Args:
        files: input file of each slice that is reconstructed, in order; none where a network is
            trained.
    """

    def __init__(self, files: Sequence[str] = ()) -> None:
        super().__init__()
        self.files, self.scans = files, list(dict.fromkeys(files))
        self._open = ExitStack()
        self._whole: Bar | None = None
        self._epoch: Bar | None = None

    def disable(self) -> None:
        """Show nothing: Lightning asks all processes but the first for it."""
        silence()

    def on_predict_start(self, *_: Any) -> None:
        """Count slices from here on, after what prepares the run."""
        self._whole = self._open.enter_context(progress("reconstruct", len(self.files), "slices"))

    def on_predict_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *_: Any
    ) -> None:
        """Say which scan is worked on."""
        if self._whole is not None and not isinstance(batch, FailedScan):
            self._whole.ahead = len(batch)
            place = self.scans.index(batch.info[0].file) + 1
            self._whole.rename(f"reconstruct: scan {place} of {len(self.scans)}")

    def on_predict_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the slices of a batch, also those that could not be read."""
        if self._whole is not None and not isinstance(batch, FailedScan):
            bad = sum(len(scan.slices) for scan in batch.failed)
            self._whole.advance(len(batch) + bad)

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Count epochs, those of an earlier start too."""
        bar = progress("train", trainer.max_epochs, "epochs", trainer.current_epoch)
        self._whole = self._open.enter_context(bar)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Count the batches of an epoch."""
        title = f"epoch {trainer.current_epoch + 1}"
        bar = progress(title, int(self.total_train_batches), "batches")
        self._epoch = self._open.enter_context(bar)

    def on_train_batch_end(self, *_: Any) -> None:
        """Count a batch."""
        if self._epoch is not None:
            self._epoch.advance()

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Count an epoch, and show its means."""
        if self._whole is None or self._epoch is None:
            return
        shown = [
            f"{name.removeprefix('train/').removesuffix('_epoch')} {value:.3g}"
            for name, value in trainer.progress_bar_metrics.items()
            if not name.endswith("_step")
        ]
        self._epoch.close()
        self._whole.rename(", ".join(["train", *shown]))
        self._whole.advance()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Close the bars, also after an error."""
        self._open.close()
