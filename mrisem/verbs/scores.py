"""Scores of the configuration, and the score of a job that a sweeper optimises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mrisem.errors import InputError

if TYPE_CHECKING:
    from mrisem.metrics.score import Score

READER_OPTIONS = ("axes", "prewhiten", "kspace_center")  # options of data that readers use


def load_scores(paths: DictConfig) -> dict[str, Score]:
    """Return the scores that the group ``metrics`` names.

    Raises:
        InputError: when a dotted path does not lead to a Score.
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
            raise InputError(
                f"metrics.{name!s} must be the dotted path of a Score, got {path} = {score!r:.60}; "
                "see conf/metrics/default.yaml"
            )
        scores[str(name)] = score
    return scores


def targets_folder(folder: Path, cache: str, options: Mapping[str, Any]) -> Path:
    """Return the folder that holds scans in fastMRI's layout, with their targets.

    Args:
        folder: the data folder; it is returned if all its scans have that layout.
        cache: cache, whose converted scans are used otherwise.
        options: options of the group ``data`` with which the scans were reconstructed.
    """
    from mrisem.data.readers.axes import parse_axes
    from mrisem.data.readers.conversion import CONVERTED, Conversion
    from mrisem.data.readers.scan import ReadOptions

    prewhiten = options.get("prewhiten")
    # records of earlier versions lack these options: the defaults are what they used
    read_options = ReadOptions(
        parse_axes(options.get("axes")),
        True if prewhiten is None else bool(prewhiten),
        options.get("kspace_center") or "middle",
    )
    return Conversion(Path(cache).absolute() / CONVERTED, read_options).targets(folder)


def mean_score(config: DictConfig) -> float:
    """Return the mean score ``config.returns`` over the slices that a job reconstructed.

    Raises:
        InputError: when there is no such score, or no slice.
    """
    from mrisem.data.folders import split_folder
    from mrisem.metrics.volume import VolumeMetrics
    from mrisem.results.reading import read_volume
    from mrisem.results.scores import score_volume

    scores = load_scores(config.metrics)
    if config.returns not in scores:
        raise InputError(
            f"returns must be one of {', '.join(scores)}, got {config.returns}; set one of them"
        )
    metrics = VolumeMetrics({config.returns: scores[config.returns]})
    folder = split_folder(Path(config.data.root), config.data.split)
    targets = targets_folder(folder, config.paths.cache, config.data)
    rows: list[dict[str, float]] = []
    for file in sorted(Path(config.output_dir).glob("reconstructions/*.h5")):
        rows += score_volume(read_volume(file), targets, metrics, "full").slices
    if not rows:
        raise InputError(
            f"returns={config.returns} needs reconstructed slices, got none; see the failed scans"
        )
    return sum(float(row[config.returns]) for row in rows) / len(rows)
