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

from omegaconf import DictConfig, OmegaConf

from mrisem.errors import InputError
from mrisem.verbs.loggers import log_scores
from mrisem.verbs.scores import load_scores

if TYPE_CHECKING:
    from mrisem.metrics.score import Score
    from mrisem.report.runs import Run
    from mrisem.report.summary import Column

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
    from mrisem.report.audit import audit_summary
    from mrisem.report.lesions import lesion_tables
    from mrisem.report.runs import find_runs
    from mrisem.report.summary import columns_of, summary_of

    folder = _output_folder(config)
    scores = load_scores(config.metrics)
    runs = find_runs([folder])
    targets = {one.folder: target_folder(one, config) for one in runs}
    rows, volumes, lesions = score_runs(folder, runs, targets, config, scores)
    columns = columns_of(scores)
    _check_reference(config.reference, {row["method"] for row in rows})
    audited = audit_runs(folder, runs, targets, config)
    summary = summary_of(rows, columns, config.reference)
    summary |= {"targets": {_name(at, folder): str(where) for at, where in targets.items()}}
    summary |= {"crop": config.crop, "reference": config.reference}
    summary |= {"audit": audit_summary(audited)}
    summary |= {"lesions": lesion_tables(lesions, config.reference)}
    summary["command"] = shlex.join(["mrisem", "evaluate", *_overrides()])
    write_tables(folder, scores, rows, volumes, lesions, audited)
    write(folder / "summary.json", json.dumps(finite(summary), indent=2, allow_nan=False) + "\n")
    placed = [row | {"run": str(folder / row["run"])} for row in rows]
    log_scores(config.logger, runs, placed, targets)
    print_tables(summary, columns)
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
    for one in runs:
        known = {"method": one.label, "anatomy": one.anatomy or config.data.name}
        known |= {"mask": one.mask, "run": _name(one.folder, folder)}
        similarities = final_similarities(one)
        for file in one.files:
            found = score_file(file, targets[one.folder] / file.name, metrics, config.crop)
            for row in found[0]:
                row |= similarities.get((file.name, int(row["slice"])), {})
            for table, part in zip(tables, found, strict=True):
                table += [row | known for row in part]
    return tables


def audit_runs(
    folder: Path, runs: list[Run], targets: dict[Path, Path], config: DictConfig
) -> list[Row]:
    """Audit each run with a prior against the same run without: rows of slices, and pictures."""
    from mrisem.report.audit import audit, find_pairs
    from mrisem.report.audit_figure import write_figure

    for old in (folder / "figures").glob("audit_*.png"):
        old.unlink()
    pairs, alone = find_pairs(runs)
    for run in alone:
        print(f"not audited: beside {run.label} there is no run of the same settings, prior=none")
    rows: list[Row] = []
    for pair in pairs:
        where = targets[pair.guided.folder]
        found = audit(pair, where, Path(config.paths.cache) / "sensitivity_maps")
        if found and config.audit_slices:
            write_figure(folder / "figures", pair, found, where, config.audit_slices)
        known = {"run": _name(pair.guided.folder, folder)}
        known |= {"without_run": _name(pair.plain.folder, folder)}
        rows += [row | known for row in found]
    return rows


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


def _output_folder(config: DictConfig) -> Path:
    if OmegaConf.is_missing(config, "output_dir") or not config.output_dir:
        raise InputError("output_dir must be the run folder to score, got none; add output_dir=RUN")
    return Path(config.output_dir).expanduser().resolve()


def _name(run: Path, folder: Path) -> str:
    return run.relative_to(folder).as_posix()


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


def write_tables(
    folder: Path,
    scores: dict[str, Score],
    rows: list[Row],
    volumes: list[Row],
    lesions: list[Row],
    audited: list[Row],
) -> None:
    """Write the CSV files; an earlier evaluation's are replaced or removed."""
    from mrisem.report import audit
    from mrisem.report import lesions as lesion_rows

    write(folder / "metrics.csv", as_csv(rows, [*_FIRST, *scores, *_LAST]))
    write(folder / "volumes.csv", as_csv(volumes, list(volumes[0])))
    for name, found, columns in (
        ("lesions.csv", lesions, lesion_rows.COLUMNS),
        ("audit.csv", audited, audit.COLUMNS),
    ):
        if found:
            write(folder / name, as_csv(found, columns))
        else:
            (folder / name).unlink(missing_ok=True)


def print_tables(summary: dict[str, Any], columns: Sequence[Column]) -> None:
    """Print the scores, the audit and the lesions."""
    from mrisem.report import audit, lesions
    from mrisem.report.tables import aligned, as_text, build_table

    for group in summary["groups"]:
        print(as_text(build_table(group, columns)), end="\n\n")
    for title, lines in audit.text_tables(summary["audit"]).items():
        print(f"{title}\n{aligned(lines)}", end="\n\n")
    for title, lines in lesions.text_tables(summary["lesions"]).items():
        print(f"{title}\n{aligned(lines)}", end="\n\n")


def write(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
