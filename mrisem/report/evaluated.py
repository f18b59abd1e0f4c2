"""What `mrisem evaluate` found about runs: scores, the prior's audit, lesions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrisem.errors import InputError
from mrisem.report.audit_figure import figure_name
from mrisem.report.changes import Changes
from mrisem.report.runs import Run
from mrisem.report.summary import Row, read_rows

Summary = dict[str, Any]


@dataclass
class Evaluated:
    """Rows of several evaluations; ``run`` is the absolute folder, ``method`` the run's label.

    Args:
        rows: of slices.
        audit: of slices of runs with a prior beside the same without.
        lesions: one lesion in one slice by one method each.
        figures: run folder to what its prior changed, where the evaluation drew it.
        targets: run folder to its target folder.
        summaries: evaluated folder to its summary.
    """

    rows: list[Row] = field(default_factory=list)
    audit: list[Row] = field(default_factory=list)
    lesions: list[Row] = field(default_factory=list)
    figures: dict[Path, Changes] = field(default_factory=dict)
    targets: dict[Path, Path] = field(default_factory=dict)
    summaries: dict[Path, Summary] = field(default_factory=dict)


def read_evaluated(roots: Sequence[Path], runs: Sequence[Run]) -> Evaluated:
    """Read what is known of every run, relabelled so that runs can be told apart.

    It is taken from the run's own folder, else from the given folder above it that was evaluated
    as a whole.

    Raises:
        InputError: a run was not evaluated, or has new files since.
    """
    found = Evaluated()
    labels = {run.folder: run.label for run in runs}
    tables: dict[Path, list[Row]] = {}
    for run in runs:
        folder, name = _evaluation(run, roots, found.summaries)
        found.targets[run.folder] = Path(found.summaries[folder]["targets"][name])
        own = {}
        for table in ("metrics", "audit", "lesions"):
            path = folder / f"{table}.csv"
            if path not in tables:
                tables[path] = read_rows(path) if path.is_file() else []
            own[table] = [row for row in tables[path] if row["run"] == name]
        if {file.name for file in run.files} - {row["file"] for row in own["metrics"]}:
            raise _not_evaluated(run, folder)
        picture = _picture(folder, own["audit"])
        if picture is not None:
            plain = (folder / own["audit"][0]["without_run"]).resolve()
            where = found.targets[run.folder]
            found.figures[run.folder] = Changes(picture, plain, run.folder, where, own["audit"])
        known = {"run": str(run.folder), "method": run.label}
        found.rows += [row | known for row in own["metrics"]]
        found.lesions += [row | known for row in own["lesions"]]
        for row in own["audit"]:
            without = labels.get((folder / row["without_run"]).resolve(), row["without"])
            found.audit.append(row | known | {"without": without})
    return found


def _evaluation(
    run: Run, roots: Sequence[Path], summaries: dict[Path, Summary]
) -> tuple[Path, str]:
    """Return the folder whose evaluation has the run, and the run's name there."""
    above = [root for root in roots if root in run.folder.parents]
    for folder in [*above, run.folder]:
        summary = summaries.get(folder) or _read_summary(folder)
        name = run.folder.relative_to(folder).as_posix()
        if summary is not None and name in summary["targets"]:
            summaries[folder] = summary
            return folder, name
    raise _not_evaluated(run, (above or [run.folder])[0])


def _picture(folder: Path, audit: Sequence[Row]) -> Path | None:
    """Return the picture that the evaluation drew of a run, or None."""
    if not audit:
        return None
    path = folder / "figures" / figure_name(*(audit[0][k] for k in ("anatomy", "mask", "method")))
    return path if path.is_file() else None


def _not_evaluated(run: Run, folder: Path) -> InputError:
    return InputError(
        f"runs must be evaluated before they are reported, got {run.folder} with reconstructions "
        f"that have no scores; run: mrisem evaluate output_dir={folder}"
    )


def _read_summary(folder: Path) -> Summary | None:
    """Return ``summary.json``, or None where there is none (or no table beside it)."""
    path = folder / "summary.json"
    if not (path.is_file() and (folder / "metrics.csv").is_file()):
        return None
    try:
        summary: Summary = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} must be JSON ({error}); evaluate again") from error
    if not {"columns", "targets"} <= summary.keys():
        raise InputError(f"{path} must be written by mrisem evaluate, got another file; remove it")
    return summary
