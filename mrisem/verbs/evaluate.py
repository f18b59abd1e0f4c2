"""`mrisem evaluate`: scores the reconstructions of a run folder, or of several, against targets."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mrisem.errors import InputError
from mrisem.progress import track
from mrisem.verbs.loggers import log_scores
from mrisem.verbs.scores import OF_READERS, in_one_layout, load_scores
from mrisem.verbs.tables import show_scores

if TYPE_CHECKING:
    from mrisem.results.evaluation import Evaluation


def run(config: DictConfig) -> int:
    """Write ``metrics.csv``, ``volumes.csv`` and ``summary.json``; print the tables.

    Also, where there is something to write: ``lesions.csv`` (lesions that targets mark),
    ``audit.csv`` and ``figures/audit_*.png`` (runs with a prior beside the same without).
    """
    from mrisem.results.evaluation import Evaluation, evaluate
    from mrisem.results.inside import one_line
    from mrisem.results.runs import find_runs
    from mrisem.results.scores import target_folder

    if OmegaConf.is_missing(config, "output_dir") or not config.output_dir:
        raise InputError("output_dir must be the run folder to score, got none; add output_dir=RUN")
    folder = Path(config.output_dir).expanduser().resolve()
    scores, runs = load_scores(config.metrics), find_runs([folder])
    targets = {
        run.folder: in_one_layout(
            target_folder(run, config.data.root, config.data.split),
            config.paths.cache,
            {name: run.settings.get(f"data.{name}") for name in OF_READERS},
        )
        for run in runs
    }
    found = Evaluation(folder, runs, targets, scores, reference=config.reference)
    evaluate(found, config.crop, config.data.name)
    for alone in found.alone:
        print(f"not audited: beside {alone.label} there is no run of the same settings, prior=none")
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    command = shlex.join(["mrisem", "evaluate", *overrides])
    told = found.summary({"crop": config.crop, "command": command})
    found.write(told, draw_audit(found, config.audit_slices))
    log_scores(config.logger, runs, found.scored.slices, targets)
    show_scores(found.tables(told))
    for entry in found.failed:
        which = f"slices {', '.join(map(str, entry.slices))}" if entry.slices else "the whole scan"
        print(one_line(f"failed: {entry.run}: {entry.file}, {which}: {entry.message}"))
    print(f"scores: {folder / 'metrics.csv'}")
    return 0


def draw_audit(found: Evaluation, most_slices: int) -> dict[str, bytes]:
    """Draw what each prior changed: file name to PNG."""
    from mrisem.report.changes import draw_changes, load_changes
    from mrisem.report.figures import as_png
    from mrisem.results.audit import find_pairs
    from mrisem.results.evaluation import audit_picture

    pictures = {}
    for pair in track(find_pairs(found.runs)[0], "maps", "pairs of runs"):
        guided, plain = pair.guided, pair.plain
        rows = [row for row in found.audited if row["run"] == str(guided.folder)]
        folders = (plain.folder, guided.folder, found.targets[guided.folder])
        if maps := load_changes(rows, folders, most_slices):
            title = f"{guided.anatomy}, {guided.mask}: {guided.label} against {plain.label}"
            name = audit_picture(guided.anatomy, guided.mask, guided.label)
            pictures[name] = as_png(draw_changes(maps, title))
    return pictures
