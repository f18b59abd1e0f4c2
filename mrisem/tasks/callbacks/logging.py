"""Callback that logs results of `predict`; Lightning itself logs only during training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure
from PIL import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from mrisem.physics.fourier import center_crop
from mrisem.tasks.base import Prediction

N_PICTURES = 8  # pictures of a run: the first slice of each of the first batches


class PredictionLogger(pl.Callback):
    """Logs curves of per-scan fits and pictures of reconstructions.

    Each slice has a number, ``scan``, in the order of reconstruction. Its curves are logged with
    ``scan`` and ``iteration``. The table ``scans`` lists file and slice of each number.
    """

    def __init__(self) -> None:
        self._scans: list[tuple[int, str, int]] = []
        self._step = 0
        self._n_pictures = 0

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        *_: Any,
    ) -> None:
        """Log curves and pictures of one batch."""
        if trainer.logger is None:
            return
        for prediction in (output for output in outputs if isinstance(output, Prediction)):
            for info in prediction.batch.info:
                self._log_curves(trainer.logger, prediction, info.file, info.slice)
            if self._n_pictures < N_PICTURES:
                self._log_picture(trainer.logger, prediction)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the table of scans."""
        if trainer.logger is not None:
            log_table(trainer.logger, "scans", ["scan", "file", "slice"], self._scans)

    def _log_curves(self, logger: Logger, prediction: Prediction, file: str, number: int) -> None:
        """Log the curves of one slice, iteration by iteration."""
        scan = len(self._scans)
        self._scans.append((scan, file, number))
        steps: dict[int, dict[str, float]] = {}
        for name, index, iteration, key, value in prediction.curves.rows:
            if (name, index) == (file, number):
                steps.setdefault(iteration, {})[metric_name(key)] = value
        for iteration, values in sorted(steps.items()):
            facts = {"scan": float(scan), "iteration": float(iteration)}
            logger.log_metrics(facts | values, step=self._step)
            self._step += 1

    def _log_picture(self, logger: Logger, prediction: Prediction) -> None:
        """Log the magnitude of the first slice of a batch, up to its 99.5th percentile."""
        batch, info = prediction.batch, prediction.batch.info[0]
        image = center_crop(prediction.reconstruction.image[0].abs(), batch.crop).float().cpu()
        figure = Figure(figsize=(4, 4 * image.shape[0] / image.shape[1]))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=float(image.quantile(0.995)))
        caption = f"{info.file} [{info.slice}]"
        log_picture(logger, "image/reconstruction", figure, caption, self._n_pictures)
        self._n_pictures += 1


def metric_name(curve: str) -> str:
    """Return the name in the logger of a curve of a fit.

    >>> metric_name("data_consistency"), metric_name("positives_24")
    ('loss/data_consistency', 'similarity/24/positives')
    """
    side, _, level = curve.rpartition("_")
    if side in ("positives", "negatives") and level.isdigit():
        return f"similarity/{level}/{side}"
    if curve.startswith("solve_"):
        return curve.replace("_", "/", 1)
    return f"loss/{curve}"


def log_table(logger: Logger, key: str, columns: Sequence[str], rows: Sequence[Any]) -> None:
    """Log a table if the logger has tables; the CSV files of the run folder hold it, too."""
    if isinstance(logger, WandbLogger):
        logger.log_table(key, columns=list(columns), data=[list(row) for row in rows])


def log_picture(logger: Logger, key: str, figure: Figure, caption: str, step: int) -> None:
    """Log a figure if the logger has pictures."""
    if isinstance(logger, WandbLogger):
        png = io.BytesIO()  # wandb knows figures by the module of their class only
        figure.savefig(png, format="png")
        logger.log_image(key, images=[Image.open(png)], caption=[caption])
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_figure(f"{key}/{caption}", figure, step)
