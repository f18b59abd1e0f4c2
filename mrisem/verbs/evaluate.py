"""`mrisem evaluate`: scores the reconstructions of a run folder, or of several, against targets."""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from mrisem.physics.fourier import center_crop
from mrisem.types import InputError

if TYPE_CHECKING:
    from mrisem.metrics.score import Score
    from mrisem.metrics.volume import VolumeMetrics
    from mrisem.report.runs import Run

Row = dict[str, Any]
_FIRST = ("file", "slice", "method", "acceleration")
_LAST = ("data_consistency", "seconds", "acquisition", "anatomy", "mask", "run")


def run(config: DictConfig) -> int:
    """Write ``metrics.csv``, ``volumes.csv`` and ``summary.json``; print the table."""
    from mrisem.report.summary import columns_of, summary_of
    from mrisem.report.tables import as_text, build_table

    folder = _output_folder(config)
    scores = load_scores(config.metrics)
    rows, volumes, targets = score_runs(folder, config, scores)
    columns = columns_of(scores)
    _check_reference(config.reference, {row["method"] for row in rows})
    summary = summary_of(rows, columns, config.reference)
    summary |= {"targets": targets, "crop": config.crop, "reference": config.reference}
    summary["command"] = shlex.join(["mrisem", "evaluate", *_overrides()])
    _write(folder / "metrics.csv", as_csv(rows, [*_FIRST, *scores, *_LAST]))
    _write(folder / "volumes.csv", as_csv(volumes, list(volumes[0])))
    _write(folder / "summary.json", json.dumps(finite(summary), indent=2, allow_nan=False) + "\n")
    for group in summary["groups"]:
        print(as_text(build_table(group, columns)), end="\n\n")
    print(f"scores: {folder / 'metrics.csv'}")
    return 0


def score_runs(
    folder: Path, config: DictConfig, scores: dict[str, Score]
) -> tuple[list[Row], list[Row], dict[str, str]]:
    """Score all runs below a folder: rows of slices, rows of volumes, run to target folder."""
    from mrisem.metrics.volume import VolumeMetrics
    from mrisem.report.runs import find_runs

    metrics = VolumeMetrics(scores)
    rows: list[Row] = []
    volumes: list[Row] = []
    targets: dict[str, str] = {}
    for one in find_runs([folder]):
        name = one.folder.relative_to(folder).as_posix()
        where = target_folder(one, config)
        targets[name] = str(where)
        for file in one.files:
            slice_rows, volume_rows = score_file(file, where / file.name, metrics, config.crop)
            known = {"method": one.label, "anatomy": one.anatomy or config.data.name}
            known |= {"mask": one.mask, "run": name}
            rows += [row | known for row in slice_rows]
            volumes += [row | known for row in volume_rows]
    return rows, volumes, targets


def load_scores(paths: DictConfig) -> dict[str, Score]:
    """Return the scores that the ``metrics`` group names.

    Raises:
        InputError: a path does not lead to a Score.
    """
    from hydra.utils import get_object

    from mrisem.metrics.score import Score

    scores: dict[str, Score] = {}
    for name, path in paths.items():
        try:
            score = get_object(path)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"metrics.{name!s} must be the dotted path of a Score, got {path} "
                f"({str(error).splitlines()[0]}); see conf/metrics/default.yaml"
            ) from error
        if not isinstance(score, Score):
            raise InputError(f"metrics.{name!s} must lead to a Score, got {path} = {score!r:.60}")
        scores[str(name)] = score
    return scores


def target_folder(one: Run, config: DictConfig) -> Path:
    """Return ``<data.root>/multicoil_<data.split>``, from the configuration, else as recorded."""
    root = config.data.root or one.recorded("data.root")
    split = config.data.split or one.recorded("data.split") or "val"
    if root is None:
        raise InputError(f"data.root must be given: {one.folder} recorded none; add data.root=DIR")
    folder = Path(root).expanduser().resolve() / f"multicoil_{split}"
    if not folder.is_dir():
        raise InputError(
            f"targets must lie in data.root/multicoil_{split}, got no folder {folder}; "
            "give data.root=DIR and data.split=NAME"
        )
    return folder


def score_file(
    file: Path, target_file: Path, metrics: VolumeMetrics, crop: str
) -> tuple[list[Row], list[Row]]:
    """Score one reconstructed volume: rows of its slices, and its row as a volume."""
    images, facts, acquisition = _read_reconstruction(file)
    target = _read_target(target_file, facts["slices"])
    if images.shape == target.shape and crop == "width":
        width = target.shape[-1]
        size = (min(width, target.shape[-2]), width)
        images, target = center_crop(images, size), center_crop(target, size)
    elif crop not in ("full", "width"):
        raise InputError(f"crop must be full or width, got {crop}")
    metrics.reset()
    metrics.update(images, target, [file.name] * len(images), facts["slices"].tolist())
    result = metrics.compute()
    at = {int(number): index for index, number in enumerate(facts["slices"])}
    for row in result["slices"]:
        index = at[int(row["slice"] or 0)]
        row |= {k: float(v[index]) for k, v in facts.items() if k != "slices"}
        row["acquisition"] = acquisition
    mean = float(np.mean(facts["acceleration"]))
    known = {"acceleration": mean, "acquisition": acquisition}
    return result["slices"], [row | known for row in result["volumes"]]


def _read_reconstruction(file: Path) -> tuple[torch.Tensor, dict[str, np.ndarray], str]:
    with _open(file) as content:
        if "reconstruction" not in content or content["reconstruction"].ndim != 3:
            raise InputError(f"{file} must hold a dataset reconstruction (slice, y, x); remake it")
        images = torch.from_numpy(content["reconstruction"][()].astype(np.float32))
        facts = {"slices": np.arange(len(images))}
        for name in ("slices", "acceleration", "data_consistency", "seconds"):
            if name in content:
                facts[name] = np.asarray(content[name][()])
            facts.setdefault(name, np.full(len(images), np.nan))
            if facts[name].shape != (len(images),):
                raise InputError(
                    f"{file}: dataset {name} must have one value for each of the {len(images)} "
                    f"slices, got shape {facts[name].shape}; reconstruct the file again"
                )
        return images, facts, str(content.attrs.get("acquisition", ""))


def _read_target(file: Path, slices: np.ndarray) -> torch.Tensor:
    if not file.is_file():
        raise InputError(
            f"each reconstruction needs a target file, got no {file}; "
            "give the data.root and data.split that were reconstructed"
        )
    with _open(file) as content:
        if "reconstruction_rss" not in content:
            raise InputError(
                f"a target file must hold reconstruction_rss, got none in {file} (test files have "
                "none); evaluate files of a split that has targets"
            )
        target = content["reconstruction_rss"][()]
    if slices.size and slices.max() >= len(target):
        raise InputError(
            f"slices must lie in the target's 0..{len(target) - 1}, got {slices.max()} "
            f"for {file.name}; was it reconstructed from this file?"
        )
    return torch.from_numpy(target[slices].astype(np.float32))


def _open(file: Path) -> h5py.File:
    try:
        return h5py.File(file)
    except OSError as error:
        raise InputError(f"{file} must be a whole HDF5 file ({error}); make it again") from error


def _output_folder(config: DictConfig) -> Path:
    if OmegaConf.is_missing(config, "output_dir") or not config.output_dir:
        raise InputError("output_dir must be the run folder to score, got none; add output_dir=RUN")
    return Path(config.output_dir).expanduser().resolve()


def _overrides() -> list[str]:
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _check_reference(reference: str | None, methods: set[str]) -> None:
    if reference is not None and reference not in methods:
        raise InputError(f"reference must be one of {sorted(methods)}, got {reference!r}")


def as_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return rows as CSV; None and NaN as empty cells."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        empty = {k: "" for k, v in row.items() if isinstance(v, float) and math.isnan(v)}
        writer.writerow(row | empty)
    return out.getvalue()


def finite(value: Any) -> Any:
    """Return a JSON-ready copy in which numbers that are not finite are None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
