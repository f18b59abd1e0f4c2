"""Writes reconstructions as they come, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytorch_lightning as pl
import torch
from filelock import FileLock

from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop
from mrisem.tasks.base import Prediction
from mrisem.tasks.samples import data_consistency_residual
from mrisem.types import FailedScan, SliceInfo

_PER_SLICE = (
    *("reconstruction", "image", "mask"),
    *("slices", "acceleration", "data_consistency", "seconds"),
)


@dataclass(frozen=True)
class Provenance:
    """What is written beside each reconstruction, and must agree when a run is resumed.

    Args:
        method: name in tables, such as ``unrolled + image_same``.
        mask: name of the mask.
        key: hash of everything that the result depends on.
    """

    method: str
    mask: str
    key: str


class ReconstructionWriter(pl.Callback):
    """Writes ``reconstructions/<input name>.h5``, ``fit.csv`` and ``embeddings/`` to a run folder.

    Each slice is kept in a hidden folder until its volume is complete; then the file appears at
    once, whole. Dataset ``reconstruction`` (slice, y, x) float32 is in the target's units and size;
    beside it, per slice: ``image`` (slice, y, x) complex64, what it is the cropped magnitude of;
    ``mask`` (slice, y, x) bool, the samples it was made from (both at the size of k-space);
    ``slices`` (index in the input), ``acceleration``, ``data_consistency`` (relative residual) and
    ``seconds``.

    Args:
        folder: the run folder.
        provenance: written as attributes; a folder with another key is not mixed with.
    """

    def __init__(self, folder: Path, provenance: Provenance) -> None:
        self.folder = folder
        self.provenance = provenance
        self.failed: list[FailedScan] = []
        self.n_written = 0

    @property
    def results(self) -> Path:
        """Folder of the finished files."""
        return self.folder / "reconstructions"

    @property
    def parts(self) -> Path:
        """Folder of the slices whose volume is not complete."""
        return self.results / ".parts"

    def clear(self) -> None:
        """Remove what an earlier run left here."""
        for folder in (self.results, self.folder / "embeddings"):
            shutil.rmtree(folder, ignore_errors=True)
        (self.folder / "fit.csv").unlink(missing_ok=True)

    def done(self) -> set[tuple[str, int]]:
        """Return (file, slice) of all that is there; refuse another configuration's."""
        found: set[tuple[str, int]] = set()
        for path in self.results.glob("*.h5"):
            with h5py.File(path) as file:
                self._check(path, str(file.attrs["key"]))
                found |= {(path.name, int(index)) for index in file["slices"]}
        for path in self.parts.glob("*/*.npz"):
            with np.load(path) as part:
                self._check(path, str(part["key"]))
            found.add((path.parent.name, int(path.stem)))
        return found

    def _check(self, path: Path, key: str) -> None:
        if key != self.provenance.key:
            raise InputError(
                f"{path} was made with another configuration; choose another output_dir, or "
                "skip_existing=false to replace it"
            )

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        *_: Any,
    ) -> None:
        """Keep the slices of a batch; finish each volume that they complete."""
        if isinstance(outputs, FailedScan):
            if outputs.file not in {scan.file for scan in self.failed}:  # one a group of slices
                self.failed.append(outputs)
            return
        self._keep(outputs)
        self._append_curves(outputs)
        self._keep_paths(outputs)
        for info in {info.file: info for info in outputs.batch.info}.values():
            self._finish(info)

    def _keep(self, prediction: Prediction) -> None:
        batch = prediction.batch
        image = prediction.reconstruction.image
        magnitude = center_crop(image.abs(), batch.crop) * batch.scale[:, None, None]
        residual = data_consistency_residual(batch, image)
        for index, info in enumerate(batch.info):
            path = self.parts / info.file / f"{info.slice}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            part = {
                "reconstruction": magnitude[index].float().cpu().numpy(),
                "image": (image[index] * batch.scale[index]).to(torch.complex64).cpu().numpy(),
                "mask": batch.mask[index].cpu().numpy(),
                "slices": info.slice,
                "acceleration": info.acceleration,
                "data_consistency": residual[index].item(),
                "seconds": prediction.seconds,
                "key": self.provenance.key,
            }
            _save_whole(path, part)
            self.n_written += 1

    def _append_curves(self, prediction: Prediction) -> None:
        if not prediction.curves.rows:
            return
        path = self.folder / "fit.csv"
        with FileLock(f"{path}.lock"):
            fresh = not path.exists()
            with path.open("a", newline="") as stream:
                table = csv.writer(stream)
                if fresh:
                    table.writerow(["file", "slice", "iteration", "name", "value"])
                table.writerows(prediction.curves.rows)
        Path(f"{path}.lock").unlink(missing_ok=True)

    def _keep_paths(self, prediction: Prediction) -> None:
        """Write where bank, zero-filled image and reconstruction stand, for the UMAP picture."""
        curves = prediction.curves
        if not curves.paths:
            return
        for index, info in enumerate(prediction.batch.info):
            arrays: dict[str, Any] = {
                "iterations": np.array([iteration for iteration, _ in curves.paths])
            }
            for level, (positives, negatives) in curves.bank.items():
                path = torch.stack([signature[level][index] for _, signature in curves.paths])
                arrays[f"path_{level}"] = path.cpu().numpy()
                arrays[f"zero_filled_{level}"] = curves.zero_filled[level][index].cpu().numpy()
                arrays[f"positives_{level}"] = positives.cpu().numpy()
                arrays[f"negatives_{level}"] = negatives.cpu().numpy()
            folder = self.folder / "embeddings" / info.file
            folder.mkdir(parents=True, exist_ok=True)
            _save_whole(folder / f"{info.slice}.npz", arrays)

    def _finish(self, info: SliceInfo) -> None:
        """Write the volume's file once all of its slices are there."""
        target = self.results / info.file
        kept = sorted((self.parts / info.file).glob("*.npz"))
        columns: dict[str, list[Any]] = {name: [] for name in _PER_SLICE}
        if target.exists():
            with h5py.File(target) as file:
                _check_complete(target, file)
                for name in _PER_SLICE:
                    columns[name] += list(file[name])
        if len(columns["slices"]) + len(kept) < info.n_slices:
            return
        for path in kept:
            with np.load(path) as part:
                _check_complete(path, part)
                for name in _PER_SLICE:
                    columns[name].append(part[name])
        order = np.argsort(columns["slices"])
        partial = self.parts / f"{info.file}.partial"
        with h5py.File(partial, "w") as file:
            for name, values in columns.items():
                data = np.stack(values)[order]
                packed = "gzip" if name == "mask" else None
                file.create_dataset(name, data=data, compression=packed)
            file.attrs["acquisition"] = info.acquisition
            file.attrs["method"] = self.provenance.method
            file.attrs["mask"] = self.provenance.mask
            file.attrs["key"] = self.provenance.key
        partial.replace(target)
        shutil.rmtree(self.parts / info.file)
        if not any(self.parts.iterdir()):
            self.parts.rmdir()


def _check_complete(path: Path, found: Container[str]) -> None:
    missing = [name for name in _PER_SLICE if name not in found]
    if missing:
        raise InputError(
            f"{path} must hold {missing} to be completed, an earlier version wrote it without; "
            "choose another output_dir, or skip_existing=false to replace it"
        )


def _save_whole(path: Path, arrays: dict[str, Any]) -> None:
    """Write a NumPy archive, wholly or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez(stream, **arrays)
    partial.replace(path)
