"""Callback that ends a run on a signal once the current batch is written."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from mrisem.signals import hold, release


class Interruption(pl.Callback):
    """Delays signals until the end of a batch; must be the last callback, after the writers."""

    def on_predict_batch_start(self, *_: Any) -> None:
        """Begin a batch."""
        hold()

    def on_predict_batch_end(self, *_: Any) -> None:
        """End a batch; raise `Interrupted` where a signal came meanwhile."""
        release()

    def on_train_batch_start(self, *_: Any) -> None:
        """Begin a batch."""
        hold()

    def on_train_batch_end(self, *_: Any) -> None:
        """End a batch; raise `Interrupted` where a signal came meanwhile."""
        release()
