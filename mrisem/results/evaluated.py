"""Reading of the results of `mrisem evaluate`: scores, audit of the prior, lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mrisem.errors import InputError
from mrisem.results import audit, lesions
from mrisem.results.evaluation import FailedSlices, StoredSummary, audit_picture, read_summary
from mrisem.results.inside import inside
from mrisem.results.rows import NEEDED, Column, Row, is_scored, read_table
from mrisem.results.run import Run

_TABLES = {"metrics": NEEDED, "audit": audit.COLUMNS, "lesions": lesions.COLUMNS}
_SPLITS = ("multicoil_", "singlecoil_")


@dataclass
class Evaluated:
    """Rows of several evaluations; ``run`` is the absolute folder, ``method`` the run's label.

    Args:
        rows: scores of slices.
        audit: audited slices of runs with a prior.
        lesions: scores of lesions.
        failed: run folder -> slices without a score.
        pictures: run folder -> picture of the changes by its prior.
        targets: run folder -> folder of its targets.
        summaries: evaluated folder -> its summary.
    """

    rows: list[Row] = field(default_factory=list)
    audit: list[Row] = field(default_factory=list)
    lesions: list[Row] = field(default_factory=list)
    failed: dict[Path, list[FailedSlices]] = field(default_factory=dict)
    pictures: dict[Path, Path] = field(default_factory=dict)
    targets: dict[Path, Path] = field(default_factory=dict)
    summaries: dict[Path, StoredSummary] = field(default_factory=dict)

    @property
    def columns(self) -> list[Column]:
        """Columns of scores of all evaluations."""
        summaries = self.summaries.values()
        columns = [column for summary in summaries for column in summary.columns.values()]
        return list({column.name: column for column in columns}.values())

    @property
    def commands(self) -> list[str]:
        """Command lines of the evaluations."""
        commands = (summary.command for summary in self.summaries.values())
        return list(dict.fromkeys(filter(None, commands)))


def read_evaluated(roots: Sequence[Path], runs: Sequence[Run]) -> Evaluated:
    """Read the results of every run; rows get the labels that runs have in this list.

    Args:
        roots: folders that may have been evaluated as a whole; else each run was by itself.
        runs: the runs.

    Raises:
        InputError: when a run was not evaluated or has new files since, or a table is damaged.
    """
    evaluated = Evaluated()
    tables: dict[Path, list[Row]] = {}
    for run in runs:
        folder, name = _evaluation(run, roots, evaluated.summaries)
        summary = evaluated.summaries[folder]
        evaluated.targets[run.folder] = _target_folder(summary.targets[name], folder)
        evaluated.failed[run.folder] = [entry for entry in summary.failed if entry.run == name]
        rows_of = {
            table: [row for row in _read_once(tables, folder, table, summary) if row["run"] == name]
            for table in _TABLES
        }
        scored = {Path(row["file"]).stem for row in rows_of["metrics"]}
        if {file.stem for file in run.files} - scored:
            raise _not_evaluated(run, folder)
        _add_audit(evaluated, rows_of["audit"], run, folder, runs)
        facts = {"run": str(run.folder), "method": run.label}
        evaluated.rows += [row | facts for row in rows_of["metrics"] if is_scored(row)]
        evaluated.lesions += [row | facts for row in rows_of["lesions"]]
    return evaluated


def _read_once(
    tables: dict[Path, list[Row]], folder: Path, table: str, summary: StoredSummary
) -> list[Row]:
    """Return the rows of a table of an evaluation; empty: it has no such table."""
    path = inside(folder, f"{table}.csv")
    if path not in tables:
        # a table that the summary does not list is left from an earlier evaluation
        is_listed = summary.files is None or path.name in summary.files
        tables[path] = read_table(path, _TABLES[table]) if is_listed and path.is_file() else []
    return tables[path]


def _add_audit(
    evaluated: Evaluated, rows: list[Row], run: Run, folder: Path, runs: Sequence[Run]
) -> None:
    """Add the rows of the audit of a run, and its picture."""
    if not rows:
        return
    labels = {run.folder: run.label for run in runs}
    # the picture's name holds the label that the run had in its evaluation
    name = audit_picture(*(rows[0][key] for key in ("anatomy", "mask", "method")))
    picture = inside(folder, f"figures/{name}")  # missing with audit_slices=0
    if picture.is_file():
        evaluated.pictures[run.folder] = picture
    plain = inside(folder, rows[0]["without_run"]).resolve()
    facts = {"without_run": str(plain), "without": labels.get(plain, rows[0]["without"])}
    evaluated.audit += [row | facts | {"run": str(run.folder), "method": run.label} for row in rows]


def _target_folder(text: str, folder: Path) -> Path:
    """Return the folder of targets; it need not exist on this machine."""
    path = Path(text)
    # the text may come from anywhere: it may name a folder of targets, and no other one
    if not (path.is_absolute() and path.name.startswith(_SPLITS)) or ".." in path.parts:
        raise InputError(
            f"targets in {folder / 'summary.json'} must be the absolute path of a split's folder, "
            f"such as /data/multicoil_val, got {text!r:.80}; evaluate again"
        )
    return path


def _evaluation(
    run: Run, roots: Sequence[Path], summaries: dict[Path, StoredSummary]
) -> tuple[Path, str]:
    """Return the folder whose evaluation includes the run, and the run's name there.

    Args:
        run: the run.
        roots: folders that may have been evaluated as a whole.
        summaries: folder -> its summary; those that are read are added.
    """
    folders = [*(root for root in roots if root in run.folder.parents), run.folder]
    for folder in folders:
        summary = summaries.get(folder) or read_summary(folder)
        name = run.folder.relative_to(folder).as_posix()
        if summary is not None and name in summary.targets:
            summaries[folder] = summary
            return folder, name
    raise _not_evaluated(run, folders[0])


def _not_evaluated(run: Run, folder: Path) -> InputError:
    """Make the error of a run without scores."""
    return InputError(
        f"runs must be evaluated before they are reported, got {run.folder} with reconstructions "
        f"that have no scores; run: mrisem evaluate output_dir={folder}"
    )
