"""Scores and pictures of results beside their targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig

from mrisem.api.methods import Result
from mrisem.api.scan import Scan
from mrisem.errors import InputError
from mrisem.metrics.score import Score
from mrisem.metrics.volume import VolumeMetrics
from mrisem.report.figures import ERROR_MAP, GREYS, View, tissue_top
from mrisem.report.panels import Panel, Tile, panel_figure
from mrisem.results.reading import Volume
from mrisem.results.scores import score_volume
from mrisem.verbs.scores import load_scores

_INDEX = ["method", "file", "slice"]


def score(scan: Scan, *results: Result, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Score results against the scan's targets, as ``mrisem evaluate`` does.

    Args:
        scan: fully sampled in its file, which holds targets.
        results: their names differ.
        metrics: names of scores in ``conf/metrics``; None: all of them.

    Returns:
        a row a method and slice; ``score(...).groupby("method").mean(numeric_only=True)`` gives
        means over slices.

    Raises:
        InputError: when there is no target, a score is unknown, or names are alike.
    """
    _check(scan, results)
    rows = []
    for result in results:
        scores = VolumeMetrics(_chosen(result.config.metrics, metrics))
        for volume in _volumes(scan, result):
            scored = score_volume(volume, volume.path.parent, scores, "full").slices
            rows += [{"method": result.name, **row} for row in scored]
    return pd.DataFrame(rows).set_index(_INDEX)


def show(
    scan: Scan,
    *results: Result,
    position: int | None = None,
    metrics: Sequence[str] = ("psnr", "ssim"),
    error_window: float = 0.15,
) -> Figure:
    """Draw a slice of each result beside its target, error maps below.

    All images have one grey window, that of the target's tissue; all error maps end at one share of
    it.

    Args:
        scan: its files hold targets.
        results: their names differ.
        position: which of ``scan.slices``; None: the middle one.
        metrics: scores in the titles.
        error_window: upper end of the error maps, as a share of the grey window.

    Raises:
        InputError: when there is no target, or a result lacks the slice.
    """
    _check(scan, results)
    n = len(scan.slices)
    position = n // 2 if position is None else position
    if not 0 <= position < n:
        raise InputError(f"position must be from 0 to {n - 1}, got {position}; choose another")
    key = scan.slices[position]
    if missing := [result.name for result in results if key not in result.slices]:
        raise InputError(f"{missing[0]} has no image of slice {key[1]} of {key[0]}; show another")
    target = scan.target[position]
    grey = tissue_top(target)
    tiles = [Tile(View("target", target, grey, GREYS), None, None)]
    scores = score(scan, *results, metrics=metrics)
    for result in results:
        image = result.image[result.slices.index(key)]
        label = _title(result, scores.loc[(result.name, *key)], metrics)
        error = View(label, np.abs(image - target), error_window * grey, ERROR_MAP)
        tiles.append(Tile(View(label, image, grey, GREYS), error, None))
    acquisition = scan.volumes[0].acquisition
    return panel_figure(Panel(*key, acquisition, grey, 100 * error_window, tuple(tiles)))


def _check(scan: Scan, results: Sequence[Result]) -> None:
    """Refuse no results, results of the same name, and those of another scan."""
    names = [result.name for result in results]
    if not names:
        raise InputError("at least one result must be given, got none; add one, such as cg_sense")
    if alike := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"results must differ in their names, got {alike[0]!r} twice; give fit(..., name=...)"
        )
    for result in results:
        if result.scan.volumes != scan.volumes:
            raise InputError(
                f"{result.name} must be of the scan {scan!r}, got one of {result.scan!r}; compare "
                "results of one scan"
            )


def _chosen(paths: DictConfig, names: Sequence[str] | None) -> dict[str, Score]:
    scores = load_scores(paths)
    if names is None:
        return scores
    if unknown := [name for name in names if name not in scores]:
        raise InputError(f"metrics must be among {', '.join(scores)}, got {unknown[0]!r}")
    return {name: scores[name] for name in names}


def _volumes(scan: Scan, result: Result) -> Iterator[Volume]:
    """Yield the result's images of each file, as they are read from a run folder."""
    for volume in scan.volumes:
        rows = result.facts[result.facts["file"] == volume.file]
        if len(rows):
            images = torch.from_numpy(result.image[rows.index])
            numbers = ("acceleration", "data_consistency", "seconds")
            facts = {name: rows[name].to_numpy() for name in numbers}
            facts["slices"] = rows["slice"].to_numpy()
            yield Volume(volume.path, images, facts, volume.acquisition)


def _title(result: Result, row: pd.Series, metrics: Sequence[str]) -> str:
    scores = load_scores(result.config.metrics)
    shown = [f"{scores[m].label.split()[0]} {row[m]:.{scores[m].digits}f}" for m in metrics]
    return "\n".join([result.name, *shown])
