"""`mrisem evaluate`: scores reconstructions of one or several run folders against targets."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mrisem.errors import InputError
from mrisem.progress import track
from mrisem.verbs.loggers import log_scores
from mrisem.verbs.scores import READER_OPTIONS, load_scores, targets_folder
from mrisem.verbs.tables import show_scores

if TYPE_CHECKING:
    from mrisem.results.evaluation import Evaluation


def run(config: DictConfig) -> int:
    """Write ``metrics.csv``, ``volumes.csv`` and ``summary.json``; print the tables.

    Targets with marked lesions also give ``lesions.csv``. Runs with a prior, evaluated with the
    same runs without it, give ``audit.csv`` and ``figures/audit_*.png``.
    """
    from mrisem.results.evaluation import Evaluation, evaluate
    from mrisem.results.inside import one_line
    from mrisem.results.runs import find_runs
    from mrisem.results.scores import target_folder

    if OmegaConf.is_missing(config, "output_dir") or not config.output_dir:
        raise InputError("output_dir must name the run folder to score, got none; set output_dir")
    folder = Path(config.output_dir).expanduser().resolve()
    scores, runs = load_scores(config.metrics), find_runs([folder])
    targets = {
        # targets of other formats come from the cache, read with the options of the run
        run.folder: targets_folder(
            target_folder(run, config.data.root, config.data.split),
            config.paths.cache,
            {name: run.settings.get(f"data.{name}") for name in READER_OPTIONS},
        )
        for run in runs
    }
    evaluation = Evaluation(folder, runs, targets, scores, reference=config.reference)
    evaluate(evaluation, config.crop, config.data.name)
    for run in evaluation.alone:
        print(f"not audited: {run.label}, since there is no run of the same settings, prior=none")
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    command = shlex.join(["mrisem", "evaluate", *overrides])
    summary = evaluation.summary({"crop": config.crop, "command": command})
    evaluation.write(summary, draw_audit(evaluation, config.audit_slices))
    log_scores(config.logger, runs, evaluation.scored.slices, targets)
    show_scores(evaluation.tables(summary))
    for entry in evaluation.failed:
        part = f"slices {', '.join(map(str, entry.slices))}" if entry.slices else "the whole scan"
        print(one_line(f"failed: {entry.run}: {entry.file}, {part}: {entry.message}"))
    print(f"scores: {folder / 'metrics.csv'}")
    return 0


def draw_audit(evaluation: Evaluation, max_slices: int) -> dict[str, bytes]:
    """Draw the changes by each prior in at most ``max_slices`` slices: file name -> PNG."""
    from mrisem.report.changes import draw_changes, load_changes
    from mrisem.report.figures import as_png
    from mrisem.results.audit import find_pairs
    from mrisem.results.evaluation import audit_picture

    pictures = {}
    for pair in track(find_pairs(evaluation.runs)[0], "maps", "pairs of runs"):
        guided, plain = pair.guided, pair.plain
        rows = [row for row in evaluation.audited if row["run"] == str(guided.folder)]
        folders = (plain.folder, guided.folder, evaluation.targets[guided.folder])
        if maps := load_changes(rows, folders, max_slices):
            title = f"{guided.anatomy}, {guided.mask}: {guided.label} against {plain.label}"
            name = audit_picture(guided.anatomy, guided.mask, guided.label)
            pictures[name] = as_png(draw_changes(maps, title))
    return pictures
