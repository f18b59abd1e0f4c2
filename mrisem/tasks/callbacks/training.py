"""What training over a dataset writes: checkpoints and ``metrics.csv``, epoch by epoch."""

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
    """Writes ``metrics.csv`` and ``checkpoints/last.ckpt`` after each epoch, whole.

    ``before.ckpt`` is the one of the epoch before; ``best.ckpt`` the one with the lowest score on
    validation subjects. A row of ``metrics.csv`` is a step, or an epoch with its means.

    Args:
        folder: the run folder.
        monitor: name of the score that selects ``best.ckpt``; None: nothing is selected.
    """

    def __init__(self, folder: Path, monitor: str | None) -> None:
        self.folder, self.monitor = folder, monitor
        self.best: float | None = None
        self.failed: dict[tuple[str, tuple[int, ...]], FailedScan] = {}
        self._rows: list[Row] = []

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best score so far from a checkpoint."""
        self.best = state_dict["best"]

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {"best": self.best}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the rows of the epochs before, where a training is continued."""
        path = self.folder / "metrics.csv"
        if trainer.current_epoch and path.is_file():
            self._rows = [r for r in read_rows(path) if r["epoch"] < trainer.current_epoch]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep a step's values, and slices that could not be read."""
        self._fail(batch)
        if not isinstance(batch, FailedScan):
            self._keep(trainer, "_step")

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep slices that could not be read."""
        self._fail(batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rows, then the checkpoints that say how far they go."""
        self._keep(trainer, "_epoch")
        # none without validation, or where no validation slice could be read
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
        if not trainer.is_global_zero:
            trainer.save_checkpoint(path)  # takes part, and writes nothing
            return
        with whole(path) as partial:
            trainer.save_checkpoint(partial)
            if path.name == "last.ckpt" and path.is_file():
                path.replace(path.with_name("before.ckpt"))

    def _keep(self, trainer: pl.Trainer, kind: str) -> None:
        values = trainer.callback_metrics.items()
        per_epoch = kind == "_epoch"
        row = {k: float(v) for k, v in values if k.endswith(kind) or (per_epoch and "val/" in k)}
        facts = {"epoch": trainer.current_epoch, "step": trainer.global_step - 1}
        self._rows.append(facts | row)

    def _fail(self, batch: Batch | FailedScan) -> None:
        for scan in [batch] if isinstance(batch, FailedScan) else batch.failed:
            self.failed[scan.file, scan.slices] = scan


@dataclass(frozen=True)
class Saved:
    """A checkpoint that a training continues from.

    Args:
        path: path of the file.
        epochs: number of epochs behind it.
    """

    path: Path
    epochs: int


def find_saved(folder: Path) -> Saved | None:
    """Return the last whole checkpoint of a run folder; a damaged one is passed over, and said so.

    Raises:
        InputError: when there are checkpoints, but none of them is whole.
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
            warnings.warn(f"{text}: goes on from {path.name}", stacklevel=2)
        return saved
    if errors:
        raise InputError(f"{errors[0]}; remove it to train from the start")
    return None


def _read(path: Path) -> int:
    """Return the number of epochs of a checkpoint, every byte of which is checked."""
    with reading(path, "a whole checkpoint of mrisem train", "the one before is looked at"):
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"its part {damaged} is damaged")
        content: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        epochs: int = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return epochs


def read_rows(path: Path) -> list[Row]:
    """Read the rows of ``metrics.csv``; empty cells are left out."""
    with (
        reading(path, "the table of a training", "remove it to go on without its history"),
        path.open(newline="", encoding="utf-8") as stream,
    ):
        rows = [{k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(stream)]
        return [row | {"epoch": int(row["epoch"]), "step": int(row["step"])} for row in rows]


def _as_csv(rows: list[Row]) -> str:
    names = sorted({name for row in rows for name in row} - {"epoch", "step"})
    stream = io.StringIO()
    table = csv.DictWriter(stream, ["epoch", "step", *names], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return stream.getvalue()
