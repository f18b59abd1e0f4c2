"""Files of training over a dataset: checkpoints and ``metrics.csv``, written every epoch."""

from __future__ import annotations

import csv
import io
import math
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from mrisem.errors import InputError
from mrisem.files import reading, whole, write_text
from mrisem.types import Batch, FailedScan

Row = dict[str, float]


class TrainingWriter(pl.Callback):
    """Writes ``metrics.csv`` and ``checkpoints/last.ckpt`` after each epoch, as whole files.

    ``before.ckpt`` is the checkpoint of the previous epoch, ``best.ckpt`` the one with the lowest
    score on validation subjects. A row of ``metrics.csv`` holds the values of a step, or the means
    of an epoch.

    Args:
        folder: run folder.
        monitor: name of the score that selects ``best.ckpt``; None: there is no ``best.ckpt``.
    """

    def __init__(self, folder: Path, monitor: str | None) -> None:
        self.folder, self.monitor = folder, monitor
        self.best: float | None = None
        self.failed: dict[tuple[str, tuple[int, ...]], FailedScan] = {}
        self._rows: list[Row] = []

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score so far from a checkpoint."""
        self.best = state_dict["best"]

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far, for a checkpoint."""
        return {"best": self.best}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the rows of earlier epochs, if a training is continued."""
        path = self.folder / "metrics.csv"
        if trainer.current_epoch and path.is_file():
            self._rows = [row for row in read_rows(path) if row["epoch"] < trainer.current_epoch]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the values of a step, and the slices that could not be read."""
        self._fail(batch)
        if not isinstance(batch, FailedScan):
            self._keep(trainer, "_step")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the slices that could not be read."""
        self._fail(batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rows, then the checkpoints.

        In this order: a training that continues from a checkpoint drops the rows of later epochs.
        """
        self._keep(trainer, "_epoch")
        # NaN without validation, or if no validation slice could be read
        score = float(trainer.callback_metrics.get(self.monitor or "", math.nan))
        improved = math.isfinite(score) and (self.best is None or score < self.best)
        if improved:
            self.best = score
        if trainer.is_global_zero:
            write_text(self.folder / "metrics.csv", _as_csv(self._rows))
        last = self.folder / "checkpoints" / "last.ckpt"
        if improved:
            self._save(trainer, last.with_name("best.ckpt"))
        self._save(trainer, last)

    def _save(self, trainer: pl.Trainer, path: Path) -> None:
        """Write a checkpoint as a whole file; keep the previous ``last.ckpt``."""
        if not trainer.is_global_zero:
            trainer.save_checkpoint(path)  # every process must call it; only process 0 writes
            return
        with whole(path) as partial:
            trainer.save_checkpoint(partial)
            # the previous checkpoint stays until the new one is complete
            if path.name == "last.ckpt" and path.is_file():
                path.replace(path.with_name("before.ckpt"))

    def _keep(self, trainer: pl.Trainer, kind: str) -> None:
        """Add a row of the values whose names end in ``kind``."""
        values = trainer.callback_metrics.items()
        per_epoch = kind == "_epoch"
        row = {
            name: float(value)
            for name, value in values
            if name.endswith(kind) or (per_epoch and "val/" in name)
        }
        facts = {"epoch": trainer.current_epoch, "step": trainer.global_step - 1}
        self._rows.append(facts | row)

    def _fail(self, batch: Batch | FailedScan) -> None:
        """Note slices that could not be read."""
        for scan in [batch] if isinstance(batch, FailedScan) else batch.failed:
            self.failed[scan.file, scan.slices] = scan


@dataclass(frozen=True)
class Saved:
    """Checkpoint from which a training continues.

    Args:
        path: file of the checkpoint.
        epochs: number of completed epochs.
    """

    path: Path
    epochs: int


def find_saved(folder: Path) -> Saved | None:
    """Find the last whole checkpoint of a run folder; skip a damaged one with a warning.

    Raises:
        InputError: when there are checkpoints, but all are damaged.
    """
    paths = [folder / "checkpoints" / f"{name}.ckpt" for name in ("last", "before")]
    errors = []
    for path in filter(Path.is_file, paths):
        try:
            saved = Saved(path, _read(path))
        except InputError as error:
            errors.append(str(error))
            continue
        for text in errors:
            warnings.warn(f"{text}: continues from {path.name}", stacklevel=2)
        return saved
    if errors:
        raise InputError(f"{errors[0]}; remove it to train from the start")
    return None


def _read(path: Path) -> int:
    """Read the number of epochs of a checkpoint, and check the file's checksums."""
    with reading(path, "a whole checkpoint of mrisem train", "the one before is looked at"):
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"its part {damaged} is damaged")
        content: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        epochs: int = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return epochs


def read_rows(path: Path) -> list[Row]:
    """Read the rows of ``metrics.csv`` without empty cells."""
    with (
        reading(path, "the table of a training", "remove it to go on without its history"),
        path.open(newline="", encoding="utf-8") as stream,
    ):
        rows = [{k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(stream)]
        return [row | {"epoch": int(row["epoch"]), "step": int(row["step"])} for row in rows]


def _as_csv(rows: list[Row]) -> str:
    """Write rows as CSV with the columns epoch, step, and all names in alphabetical order."""
    names = sorted({name for row in rows for name in row} - {"epoch", "step"})
    stream = io.StringIO()
    table = csv.DictWriter(stream, ["epoch", "step", *names], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return stream.getvalue()
