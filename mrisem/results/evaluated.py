"""What `mrisem evaluate` found about runs, read back: scores, the prior's audit, lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mrisem.errors import InputError
from mrisem.results import audit, lesions
from mrisem.results.evaluation import FailedSlices, Told, audit_picture, read_told
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
        failed: run folder to its slices without a score.
        pictures: run folder to the picture of what its prior changed.
        targets: run folder to the folder of its targets.
        told: summary of each folder that was evaluated.
    """

    rows: list[Row] = field(default_factory=list)
    audit: list[Row] = field(default_factory=list)
    lesions: list[Row] = field(default_factory=list)
    failed: dict[Path, list[FailedSlices]] = field(default_factory=dict)
    pictures: dict[Path, Path] = field(default_factory=dict)
    targets: dict[Path, Path] = field(default_factory=dict)
    told: dict[Path, Told] = field(default_factory=dict)

    @property
    def columns(self) -> list[Column]:
        """All columns of scores."""
        columns = [column for told in self.told.values() for column in told.columns.values()]
        return list({column.name: column for column in columns}.values())

    @property
    def commands(self) -> list[str]:
        """The command lines that evaluated."""
        commands = (told.command for told in self.told.values())
        return list(dict.fromkeys(filter(None, commands)))


def read_evaluated(roots: Sequence[Path], runs: Sequence[Run]) -> Evaluated:
    """Read what is known of every run, relabelled so that runs can be told apart.

    It is taken from the run's own folder, else from the given folder above it that was evaluated
    as a whole.

    Raises:
        InputError: a run was not evaluated, or has new files since; or a table is damaged.
    """
    evaluated = Evaluated()
    tables: dict[Path, list[Row]] = {}
    for run in runs:
        folder, name = _evaluation(run, roots, evaluated.told)
        told = evaluated.told[folder]
        evaluated.targets[run.folder] = _target_folder(told.targets[name], folder)
        evaluated.failed[run.folder] = [entry for entry in told.failed if entry.run == name]
        own = {}
        for table, columns in _TABLES.items():
            path = inside(folder, f"{table}.csv")
            if path not in tables:
                listed = told.files is None or path.name in told.files
                tables[path] = read_table(path, columns) if listed and path.is_file() else []
            own[table] = [row for row in tables[path] if row["run"] == name]
        scored = {Path(row["file"]).stem for row in own["metrics"]}
        if {file.stem for file in run.files} - scored:
            raise _not_evaluated(run, folder)
        _add_audit(evaluated, own["audit"], run, folder, runs)
        facts = {"run": str(run.folder), "method": run.label}
        evaluated.rows += [row | facts for row in own["metrics"] if is_scored(row)]
        evaluated.lesions += [row | facts for row in own["lesions"]]
    return evaluated


def _add_audit(
    evaluated: Evaluated, rows: list[Row], run: Run, folder: Path, runs: Sequence[Run]
) -> None:
    """Take over a run's rows of the audit, and its picture."""
    if not rows:
        return
    labels = {one.folder: one.label for one in runs}
    drawn = audit_picture(*(rows[0][key] for key in ("anatomy", "mask", "method")))
    picture = inside(folder, f"figures/{drawn}")
    if picture.is_file():
        evaluated.pictures[run.folder] = picture
    plain = inside(folder, rows[0]["without_run"]).resolve()
    facts = {"without_run": str(plain), "without": labels.get(plain, rows[0]["without"])}
    evaluated.audit += [row | facts | {"run": str(run.folder), "method": run.label} for row in rows]


def _target_folder(text: str, folder: Path) -> Path:
    """Return where targets are, which may be on another machine: then the page has no errors."""
    path = Path(text)
    if not (path.is_absolute() and path.name.startswith(_SPLITS)) or ".." in path.parts:
        raise InputError(
            f"targets in {folder / 'summary.json'} must be an absolute folder of a split, such as "
            f"/data/multicoil_val, got {text!r:.80}; evaluate again"
        )
    return path


def _evaluation(run: Run, roots: Sequence[Path], known: dict[Path, Told]) -> tuple[Path, str]:
    """Return the folder whose evaluation has the run, and the run's name there."""
    folders = [*(root for root in roots if root in run.folder.parents), run.folder]
    for folder in folders:
        told = known.get(folder) or read_told(folder)
        name = run.folder.relative_to(folder).as_posix()
        if told is not None and name in told.targets:
            known[folder] = told
            return folder, name
    raise _not_evaluated(run, folders[0])


def _not_evaluated(run: Run, folder: Path) -> InputError:
    return InputError(
        f"runs must be evaluated before they are reported, got {run.folder} with reconstructions "
        f"that have no scores; run: mrisem evaluate output_dir={folder}"
    )
