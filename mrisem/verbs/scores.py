"""The scores of a configuration, and the one of a job that a sweeper optimises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from mrisem.errors import InputError

if TYPE_CHECKING:
    from mrisem.metrics.score import Score

OF_READERS = ("axes", "prewhiten", "kspace_center")  # options of data that readers follow


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


def in_one_layout(folder: Path, cache: str, options: Mapping[str, Any]) -> Path:
    """Return where the scans of a data folder lie in fastMRI's layout, with their targets.

    Args:
        folder: the data folder; itself where all scans have that layout.
        cache: folder in which scans of other formats are kept in that layout.
        options: the group ``data`` of the configuration that the scans were reconstructed with.
    """
    from mrisem.data.readers.axes import parse_axes
    from mrisem.data.readers.conversion import CONVERTED, Conversion
    from mrisem.data.readers.scan import ReadOptions

    prewhiten = options.get("prewhiten")
    told = ReadOptions(
        parse_axes(options.get("axes")),
        True if prewhiten is None else bool(prewhiten),
        options.get("kspace_center") or "middle",
    )
    return Conversion(Path(cache).absolute() / CONVERTED, told).targets(folder)


def mean_score(config: DictConfig) -> float:
    """Return the mean over slices of the score ``config.returns`` of what a job reconstructed.

    Raises:
        InputError: there is no such score.
    """
    from mrisem.data.folders import split_folder
    from mrisem.metrics.volume import VolumeMetrics
    from mrisem.results.reading import read_volume
    from mrisem.results.scores import score_volume

    scores = load_scores(config.metrics)
    if config.returns not in scores:
        raise InputError(f"returns must be one of {', '.join(scores)}, got {config.returns}")
    metrics = VolumeMetrics({config.returns: scores[config.returns]})
    folder = split_folder(Path(config.data.root), config.data.split)
    targets = in_one_layout(folder, config.paths.cache, config.data)
    rows: list[dict[str, float]] = []
    for file in sorted(Path(config.output_dir).glob("reconstructions/*.h5")):
        rows += score_volume(read_volume(file), targets, metrics, "full").slices
    if not rows:
        raise InputError(f"returns={config.returns} needs reconstructed slices, got none")
    return sum(float(row[config.returns]) for row in rows) / len(rows)
