"""`mrisem evaluate`: scores the reconstructions of a run folder, or of several, against targets."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mrisem.errors import InputError
from mrisem.verbs.loggers import log_scores
from mrisem.verbs.scores import load_scores

if TYPE_CHECKING:
    from mrisem.metrics.score import Score
    from mrisem.report.runs import Run

Row = dict[str, Any]
_FIRST = ("file", "slice", "method", "acceleration")
_LAST = (
    *("lesions", "lesion_contrast", "lesion_error"),
    *("similarity_positives", "similarity_negatives"),
    *("data_consistency", "seconds", "acquisition", "anatomy", "mask", "run"),
)


def run(config: DictConfig) -> int:
    """Write ``metrics.csv``, ``volumes.csv`` and ``summary.json``; print the tables.

    Also, where there is something to write: ``lesions.csv`` (lesions that targets mark),
    ``audit.csv`` and ``figures/audit_*.png`` (runs with a prior beside the same without).
    """
    from mrisem.report import audit, lesions, summary, tables
    from mrisem.report.runs import find_runs

    if OmegaConf.is_missing(config, "output_dir") or not config.output_dir:
        raise InputError("output_dir must be the run folder to score, got none; add output_dir=RUN")
    folder = Path(config.output_dir).expanduser().resolve()
    scores, runs = load_scores(config.metrics), find_runs([folder])
    targets = {run.folder: target_folder(run, config) for run in runs}
    rows, volumes, marked = score_runs(folder, runs, targets, config, scores)
    summary.check_reference(config.reference, rows)
    audited = audit_runs(folder, runs, targets, config)
    columns = summary.columns_of(scores)
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    told = summary.summary_of(rows, columns, config.reference) | {
        "targets": {_name(at, folder): str(where) for at, where in targets.items()},
        "crop": config.crop,
        "reference": config.reference,
        "audit": audit.audit_summary(audited),
        "lesions": lesions.lesion_tables(marked, config.reference),
        "command": shlex.join(["mrisem", "evaluate", *overrides]),
    }
    for name, table, names in (
        ("metrics.csv", rows, (*_FIRST, *scores, *_LAST)),
        ("volumes.csv", volumes, volumes[0]),
        ("lesions.csv", marked, lesions.COLUMNS),
        ("audit.csv", audited, audit.COLUMNS),
    ):
        if table:
            write(folder / name, summary.rows_as_csv(table, list(names)))
        else:
            (folder / name).unlink(missing_ok=True)
    write(folder / "summary.json", json.dumps(finite(told), indent=2, allow_nan=False) + "\n")
    placed = [row | {"run": str(folder / row["run"])} for row in rows]
    log_scores(config.logger, runs, placed, targets)
    shown = [tables.build_table(group, columns) for group in told["groups"]]
    shown += [*audit.audit_tables(told["audit"]), *lesions.page_tables(told["lesions"])]
    for one in shown:
        print(tables.as_text(one), end="\n\n")
    print(f"scores: {folder / 'metrics.csv'}")
    return 0


def score_runs(
    folder: Path,
    runs: list[Run],
    targets: dict[Path, Path],
    config: DictConfig,
    scores: dict[str, Score],
) -> tuple[list[Row], list[Row], list[Row]]:
    """Score all runs below a folder: rows of slices, of volumes, of lesions."""
    from mrisem.metrics.volume import VolumeMetrics
    from mrisem.report.curves import final_similarities
    from mrisem.report.results import score_file

    metrics = VolumeMetrics(scores)
    tables: tuple[list[Row], list[Row], list[Row]] = ([], [], [])
    for run in runs:
        facts = {"method": run.label, "anatomy": run.anatomy or config.data.name}
        facts |= {"mask": run.mask, "run": _name(run.folder, folder)}
        similarities = final_similarities(run)
        for file in run.files:
            parts = score_file(file, targets[run.folder] / file.name, metrics, config.crop)
            for row in parts[0]:
                row |= similarities.get((file.name, int(row["slice"])), {})
            for table, part in zip(tables, parts, strict=True):
                table += [row | facts for row in part]
    return tables


def audit_runs(
    folder: Path, runs: list[Run], targets: dict[Path, Path], config: DictConfig
) -> list[Row]:
    """Audit each run with a prior against the same run without: rows of slices, and pictures."""
    from mrisem.report.audit import audit, find_pairs
    from mrisem.report.changes import draw_changes, load_changes
    from mrisem.report.evaluated import audit_picture
    from mrisem.report.figures import as_png

    figures = folder / "figures"
    for old in figures.glob("audit_*.png"):
        old.unlink()
    pairs, alone = find_pairs(runs)
    for run in alone:
        print(f"not audited: beside {run.label} there is no run of the same settings, prior=none")
    rows: list[Row] = []
    for pair in pairs:
        guided, plain, where = pair.guided, pair.plain, targets[pair.guided.folder]
        audited = audit(pair, where, Path(config.paths.cache) / "sensitivity_maps")
        maps = load_changes(audited, (plain.folder, guided.folder, where), config.audit_slices)
        if maps:
            title = f"{guided.anatomy}, {guided.mask}: {guided.label} against {plain.label}"
            figures.mkdir(parents=True, exist_ok=True)
            path = figures / audit_picture(guided.anatomy, guided.mask, guided.label)
            path.write_bytes(as_png(draw_changes(maps, title)))
        folders = {"run": _name(guided.folder, folder), "without_run": _name(plain.folder, folder)}
        rows += [row | folders for row in audited]
    return rows


def target_folder(run: Run, config: DictConfig) -> Path:
    """Return ``<data.root>/multicoil_<data.split>``, from the configuration, else as recorded."""
    root = config.data.root or run.recorded("data.root")
    split = config.data.split or run.recorded("data.split") or "val"
    if root is None:
        raise InputError(f"data.root must be given: {run.folder} recorded none; add data.root=DIR")
    folder = Path(root).expanduser().resolve() / f"multicoil_{split}"
    if not folder.is_dir():
        raise InputError(
            f"targets must lie in data.root/multicoil_{split}, got no folder {folder}; "
            "give data.root=DIR and data.split=NAME"
        )
    return folder


def _name(run: Path, folder: Path) -> str:
    return run.relative_to(folder).as_posix()


def finite(value: Any) -> Any:
    """Return a JSON-ready copy in which numbers that are not finite are None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
