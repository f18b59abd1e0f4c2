"""Scoring of runs: rows of slices, of volumes, of lesions, and of failed slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mrisem.errors import InputError
from mrisem.metrics.lesions import score_lesions
from mrisem.progress import track
from mrisem.results.curves import final_similarities
from mrisem.results.reading import Failure, Volume, read_volume
from mrisem.results.rows import Row
from mrisem.results.run import Run
from mrisem.results.targets import Target, read_target

if TYPE_CHECKING:
    from torch import Tensor

    from mrisem.metrics.volume import VolumeMetrics


@dataclass
class Scored:
    """Rows of slices, volumes and lesions, and of failed slices, which have no numbers."""

    slices: list[Row] = field(default_factory=list)
    volumes: list[Row] = field(default_factory=list)
    lesions: list[Row] = field(default_factory=list)
    failed: list[Row] = field(default_factory=list)

    def add(self, other: Scored, facts: Row) -> None:
        """Add the rows of another object, each with these facts."""
        for name, rows in vars(other).items():
            getattr(self, name).extend(row | facts for row in rows)


def target_folder(run: Run, root: str | None, split: str | None) -> Path:
    """Return the folder of a run's targets.

    Args:
        run: the run, which may have recorded the folder of its data.
        root: folder of the data; None: the recorded one.
        split: name of the split, such as ``val``; None: the recorded one, else ``val``.

    Raises:
        InputError: when no folder is given or recorded, or it does not exist.
    """
    from mrisem.data.folders import split_folder

    root = root or run.data.get("root")
    split = split or run.data.get("split") or "val"
    if root is None:
        raise InputError(
            f"data.root must name the folder of the data, got none recorded in {run.folder}; set "
            "data.root"
        )
    folder = split_folder(Path(root).expanduser().resolve(), split)
    if "/" in split or not folder.is_dir():
        raise InputError(
            f"targets must lie in data.root/multicoil_{split}, got no folder {folder}; set "
            "data.root and data.split"
        )
    return folder


def score_runs(
    runs: Sequence[Run],
    targets: Mapping[Path, Path],
    metrics: VolumeMetrics,
    crop: str,
    anatomy: str = "",
) -> Scored:
    """Score runs; in the rows ``run`` is the absolute folder.

    Args:
        runs: labelled runs.
        targets: run folder -> folder of its targets.
        metrics: scores.
        crop: part of the images that is scored, see `score_volume`.
        anatomy: anatomy of runs that recorded none.
    """
    scored = Scored()
    for run in track(runs, "score", "runs"):
        facts = {"method": run.label, "anatomy": run.anatomy or anatomy, "mask": run.mask}
        facts |= {"run": str(run.folder)}
        similarities = final_similarities(run)
        reported: set[tuple[Any, Any]] = set()  # (file, slice) with a row
        for file in track(run.files, run.label, "scans"):
            volume = read_volume(file)
            if volume.record is not None and volume.record.key != run.record.key:
                raise InputError(
                    f"all files of a run must have its record, got that of another run in {file}; "
                    "reconstruct the file again"
                )
            part = score_volume(volume, targets[run.folder], metrics, crop)
            for row in part.slices:
                row |= similarities.get((volume.file, row["slice"]), {})
            reported |= {(row["file"], row["slice"]) for row in (*part.slices, *part.failed)}
            scored.add(part, facts)
        # failed.json also lists slices that the volumes name
        failed = [row for failure in run.failed for row in failed_rows(failure)]
        rest = [row for row in failed if (row["file"], row["slice"]) not in reported]
        scored.add(Scored(failed=rest), facts)
    return scored


def score_volume(volume: Volume, targets: Path, metrics: VolumeMetrics, crop: str) -> Scored:
    """Score one reconstructed volume.

    Args:
        volume: the reconstruction.
        targets: folder of the input files, with the targets.
        metrics: scores; their state is reset.
        crop: part of the images that is scored: ``full``, or ``width``, the central ``(x, x)``.
    """
    name = volume.file
    facts = {"acquisition": volume.acquisition, "subject": volume.subject}
    listed = [row | facts for failure in volume.failed for row in failed_rows(failure, name)]
    failed = [row for row in listed if row["slice"] not in volume.slices]
    # fits that were given up have a message, and their last good image
    given_up = {row["slice"]: row["failed"] for row in listed}
    if not volume.slices:
        return Scored(failed=failed)
    stored = read_target(targets / name, volume.slices)
    if volume.scan is None:  # written by another program
        facts["subject"] = stored.subject or volume.subject
    shown, truth, labels = _cropped(volume, stored, crop)
    target = truth[volume.slices]
    metrics.reset()
    names = [name] * len(shown)
    # PSNR and SSIM refer to the maximum of the whole volume, as in fastmri.evaluate
    metrics.update(shown, target, names, volume.slices, {name: float(truth.max())})
    result = metrics.compute()
    rows: list[Row] = [{**row} for row in result["slices"]]
    lesions: list[Row] = []
    for row in rows:
        index = volume.slices.index(row["slice"])
        row |= {k: float(v[index]) for k, v in volume.facts.items() if k != "slices"}
        row |= facts
        if row["slice"] in given_up:
            row["failed"] = given_up[row["slice"]]
        if labels is not None:
            lesions += _score_lesions(row, shown[index], target[index], labels[row["slice"]])
    mean: Row = {"acceleration": float(np.mean(volume.facts["acceleration"]))} | facts
    return Scored(rows, [row | mean for row in result["volumes"]], lesions, failed)


def _cropped(volume: Volume, stored: Target, crop: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return reconstruction, targets and lesion labels, each cropped as `score_volume` says."""
    from mrisem.physics.fourier import center_crop

    shown, truth, labels = volume.images, stored.images, stored.lesions
    if crop == "width" and shown.shape[1:] == truth.shape[1:]:  # else the metrics refuse them
        size = (min(truth.shape[-2:]), truth.shape[-1])
        shown, truth = center_crop(shown, size), center_crop(truth, size)
        labels = None if labels is None else center_crop(labels, size)
    return shown, truth, labels


def _score_lesions(row: Row, shown: Tensor, target: Tensor, labels: Tensor) -> list[Row]:
    """Return a row for each lesion of a slice, and add their means to the slice's row."""
    scores = [asdict(s) for s in score_lesions(shown.numpy(), target.numpy(), labels.numpy())]
    row["lesions"] = len(scores)
    for name in ("contrast", "error"):
        values = [score[name] for score in scores]
        row[f"lesion_{name}"] = float(np.mean(values)) if values else float("nan")
    kept = ("file", "subject", "slice", "acceleration", "acquisition")
    facts = {key: row[key] for key in kept}
    return [facts | score for score in scores]


def failed_rows(failure: Failure, file: str | None = None) -> list[Row]:
    """Return a row for each failed slice; one row without a slice if the whole scan failed."""
    facts = {"file": failure.file or file, "failed": failure.message or "no reason was recorded"}
    return [facts | {"slice": number} for number in failure.slices or (None,)]
