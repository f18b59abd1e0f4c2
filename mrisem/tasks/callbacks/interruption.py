"""Ends a run on a signal when the present batch is kept."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from mrisem.signals import hold, release


class Interruption(pl.Callback):
    """Lets signals wait for the end of a batch; stands last, after what keeps the batch."""

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
