"""What `mrisem evaluate` found about runs: scores, the prior's audit, lesions."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mrisem.errors import InputError
from mrisem.report.runs import Run, slug
from mrisem.report.summary import Column, Row, read_rows

Summary = dict[str, Any]


@dataclass
class Evaluated:
    """Rows of several evaluations; ``run`` is the absolute folder, ``method`` the run's label."""

    rows: list[Row] = field(default_factory=list)  # of slices
    audit: list[Row] = field(default_factory=list)  # of slices of runs with a prior
    lesions: list[Row] = field(default_factory=list)
    pictures: dict[Path, Path] = field(default_factory=dict)  # run to what its prior changed
    targets: dict[Path, Path] = field(default_factory=dict)  # run to folder of its targets
    summaries: dict[Path, Summary] = field(default_factory=dict)  # by the folder evaluated

    @property
    def columns(self) -> list[Column]:
        """All columns of scores."""
        columns = [Column(**c) for s in self.summaries.values() for c in s["columns"].values()]
        return list({column.name: column for column in columns}.values())


def audit_picture(anatomy: str, mask: str, method: str) -> str:
    """Return the file name of the picture of what a prior changed.

    >>> audit_picture("brain", "gaussian R=4", "unrolled + image_same")
    'audit_brain_gaussian_r_4_unrolled_image_same.png'
    """
    return f"audit_{slug(f'{anatomy}, {mask} {method}')}.png"


def read_evaluated(roots: Sequence[Path], runs: Sequence[Run]) -> Evaluated:
    """Read what is known of every run, relabelled so that runs can be told apart.

    It is taken from the run's own folder, else from the given folder above it that was evaluated
    as a whole.

    Raises:
        InputError: a run was not evaluated, or has new files since.
    """
    evaluated = Evaluated()
    labels = {run.folder: run.label for run in runs}
    tables: dict[Path, list[Row]] = {}
    for run in runs:
        folder, name = _evaluation(run, roots, evaluated.summaries)
        evaluated.targets[run.folder] = Path(evaluated.summaries[folder]["targets"][name])
        for table, rows in (
            ("metrics", evaluated.rows),
            ("audit", evaluated.audit),
            ("lesions", evaluated.lesions),
        ):
            path = folder / f"{table}.csv"
            if path not in tables:
                tables[path] = read_rows(path) if path.is_file() else []
            own = [row for row in tables[path] if row["run"] == name]
            if table == "metrics" and {f.name for f in run.files} - {row["file"] for row in own}:
                raise _not_evaluated(run, folder)
            if table == "audit" and own:
                drawn = audit_picture(*(own[0][key] for key in ("anatomy", "mask", "method")))
                if (folder / "figures" / drawn).is_file():
                    evaluated.pictures[run.folder] = folder / "figures" / drawn
                plain = (folder / own[0]["without_run"]).resolve()
                without = labels.get(plain, own[0]["without"])
                own = [row | {"without_run": str(plain), "without": without} for row in own]
            rows += [row | {"run": str(run.folder), "method": run.label} for row in own]
    return evaluated


def _evaluation(
    run: Run, roots: Sequence[Path], summaries: dict[Path, Summary]
) -> tuple[Path, str]:
    """Return the folder whose evaluation has the run, and the run's name there."""
    folders = [*(root for root in roots if root in run.folder.parents), run.folder]
    for folder in folders:
        summary = summaries.get(folder) or _read_summary(folder)
        name = run.folder.relative_to(folder).as_posix()
        if name in summary.get("targets", ()):
            summaries[folder] = summary
            return folder, name
    raise _not_evaluated(run, folders[0])


def _not_evaluated(run: Run, folder: Path) -> InputError:
    return InputError(
        f"runs must be evaluated before they are reported, got {run.folder} with reconstructions "
        f"that have no scores; run: mrisem evaluate output_dir={folder}"
    )


def _read_summary(folder: Path) -> Summary:
    """Return ``summary.json``, empty where there is none (or no table beside it)."""
    path = folder / "summary.json"
    if not (path.is_file() and (folder / "metrics.csv").is_file()):
        return {}
    try:
        summary: Summary = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} must be JSON ({error}); evaluate again") from error
    if not {"columns", "targets"} <= summary.keys():
        raise InputError(f"{path} must be written by mrisem evaluate, got another file; remove it")
    return summary
