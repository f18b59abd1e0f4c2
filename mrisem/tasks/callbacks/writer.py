"""Callback that writes each reconstruction, so that an interrupted run can be continued."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from mrisem.files import whole
from mrisem.results.files import CURVE, Part, RunFolder
from mrisem.tasks.base import Prediction
from mrisem.tasks.curves import FitCurves
from mrisem.tasks.samples import data_consistency_residual
from mrisem.types import FailedScan


class ReconstructionWriter(pl.Callback):
    """Writes each slice into the run folder, and a volume's file when its slices are complete.

    The dataset ``reconstruction`` (slice, y, x) float32 has the target's unit and size. Beside it
    are, for each slice:

    * ``image`` (slice, y, x) complex64, whose cropped magnitude is ``reconstruction``, and ``mask``
      (slice, y, x) bool, the samples that were used; both have the size of the batch's k-space;
    * ``coarse_maps`` (slice, coil, g, g) complex64 (`mrisem.physics.coils.interpolate_maps`), and
      ``readout``, number of rows of the field of view that the maps cover;
    * ``slices`` (index in the input), ``acceleration``, ``data_consistency`` (relative residual)
      and ``seconds``.

    Args:
        run: run folder, locked by this process.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        *_: Any,
    ) -> None:
        """Write the slices of a batch; an image that is not finite counts as failed."""
        for output in outputs:
            if isinstance(output, FailedScan):
                self.run.fail(output)
            else:
                self._keep(output)
        # a volume's file is written when the last of its slices is there
        for file in {output.file for output in outputs}:
            if file in self.run.plan:
                self.run.finish(file)

    def _keep(self, prediction: Prediction) -> None:
        """Write the slices of a prediction with their curves and embeddings."""
        batch, image = prediction.batch, prediction.reconstruction.image
        magnitude = prediction.magnitude
        residual = data_consistency_residual(batch, image)
        paths = paths_of(prediction.curves, len(batch))
        for scan in prediction.failed:
            self.run.fail(scan)
        for index, info in enumerate(batch.info):
            if not bool(magnitude[index].isfinite().all()):
                self.run.fail(FailedScan(info.file, "its image is not finite", (info.slice,)))
                continue
            # back to the units of the input file
            part: Part = {
                "reconstruction": _array(magnitude[index].float()),
                "image": _array((image[index] * batch.scale[index]).to(torch.complex64)),
                "mask": _array(batch.mask[index]),
                "slices": np.asarray(info.slice),
                "acceleration": np.asarray(info.acceleration),
                "data_consistency": np.asarray(residual[index].item()),
                "seconds": np.asarray(prediction.seconds),
            }
            if batch.coarse_maps is not None:
                part["coarse_maps"] = _array(batch.coarse_maps[index])
                part["readout"] = np.asarray(batch.readout or batch.mask.shape[1])
            rows = [row[1:] for row in prediction.curves.rows if row[:2] == (info.file, info.slice)]
            if paths:
                self._keep_path(info.file, info.slice, paths[index])
            self.run.keep(info.file, info.slice, part, np.array(rows, CURVE))

    def _keep_path(self, file: str, index: int, arrays: dict[str, np.ndarray]) -> None:
        """Write the embeddings of one slice."""
        target = self.run.folder / "embeddings" / file / f"{index}.npz"
        with whole(target) as partial, partial.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)


def paths_of(curves: FitCurves, n: int) -> list[dict[str, np.ndarray]]:
    """Return the embeddings of bank, zero-filled image and reconstructions of each slice."""
    if not curves.paths:
        return []
    shared = {"iterations": np.array([iteration for iteration, _ in curves.paths])}
    for level, (positives, negatives) in curves.bank.items():
        shared |= {f"positives_{level}": _array(positives), f"negatives_{level}": _array(negatives)}
    return [
        shared
        | {
            f"path_{level}": _array(torch.stack([place[level][i] for _, place in curves.paths]))
            for level in curves.bank
        }
        | {f"zero_filled_{level}": _array(curves.zero_filled[level][i]) for level in curves.bank}
        for i in range(n)
    ]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
