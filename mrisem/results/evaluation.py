"""What `mrisem evaluate` finds about the runs of a folder, and writes there."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from mrisem.files import reading, write_bytes, write_text
from mrisem.metrics.score import Score
from mrisem.progress import track
from mrisem.results import audit, lesions
from mrisem.results.inside import FileName, inside, slug
from mrisem.results.labels import check_reference
from mrisem.results.reading import Failure, has_patient_id
from mrisem.results.rows import Column, Row, as_csv, columns_of
from mrisem.results.run import Run
from mrisem.results.scores import Scored, score_runs
from mrisem.results.summary import summary_of
from mrisem.results.tables import Table, build_table

_FIRST = ("file", "subject", "slice", "method", "acceleration")
_LAST = (
    *("lesions", "lesion_contrast", "lesion_error"),
    *("similarity_positives", "similarity_negatives"),
    *("data_consistency", "seconds", "acquisition", "anatomy", "mask", "run", "failed"),
)
_OURS = re.compile(r"(lesions|audit)\.csv|figures/audit_[a-z0-9_]+\.png")  # may be removed
_FOLDERS = ("run", "without_run")


class FailedSlices(Failure):
    """Slices of a run that failed, as ``summary.json`` lists them."""

    run: str
    file: FileName


class Told(BaseModel):
    """What is read back of ``summary.json``.

    Args:
        columns: description of each column of numbers, by name.
        targets: folder of the targets of each run, by its path relative to the folder.
        command: command line that made it.
        failed: slices that failed.
        files: names of what it wrote; None: written by a version that did not list them.
    """

    columns: dict[str, Column]
    targets: dict[str, str]
    command: str | None = None
    failed: tuple[FailedSlices, ...] = ()
    files: tuple[str, ...] | None = None


@dataclass
class Evaluation:
    """Scores and audit of runs; in the rows ``run`` is the absolute folder.

    Args:
        folder: run folder, or the one above several.
        runs: labelled runs in or below it.
        targets: run folder to folder of its targets.
        scores: score of each column.
        scored: rows of slices and so on.
        audited: rows of runs with a prior.
        alone: runs with a prior that have no partner.
        reference: label that all are tested against; None: see `mrisem.results.labels`.
        without_subject: files without ``patient_id``.
    """

    folder: Path
    runs: list[Run]
    targets: dict[Path, Path]
    scores: dict[str, Score]
    scored: Scored = field(default_factory=Scored)
    audited: list[Row] = field(default_factory=list)
    alone: list[Run] = field(default_factory=list)
    reference: str | None = None
    without_subject: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[FailedSlices]:
        """Slices that failed, one entry a message of a file."""
        found: dict[tuple[str, str, str], list[int]] = {}
        given_up = [row for row in self.scored.slices if "failed" in row]
        for row in (*given_up, *self.scored.failed):
            key = (self._name(row["run"]), row["file"], row["failed"])
            found.setdefault(key, []).extend([] if row["slice"] is None else [row["slice"]])
        return [
            FailedSlices(run=run, file=file, slices=tuple(slices), message=message)
            for (run, file, message), slices in found.items()
        ]

    def summary(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return what ``summary.json`` says, with these facts beside."""
        columns = columns_of(self.scores)
        told = summary_of(self.scored.slices, columns, self.runs, self.reference)
        return told | {
            "targets": {self._name(run): str(where) for run, where in self.targets.items()},
            "reference": self.reference,
            "audit": audit.audit_summary(self.audited),
            "lesions": lesions.lesion_tables(self.scored.lesions, self.runs, self.reference),
            "failed": [entry.model_dump() for entry in self.failed],
            "files_without_patient_id": self.without_subject,
            **facts,
        }

    def write(self, told: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
        """Write the tables, the pictures and ``summary.json``, which lists all of them.

        Optional files that an earlier evaluation listed, and this one has not, are removed.
        """
        tables = {
            "metrics.csv": (self._rows(), (*_FIRST, *self.scores, *_LAST)),
            "volumes.csv": (self.scored.volumes, tuple(next(iter(self.scored.volumes), ()))),
            "lesions.csv": (self.scored.lesions, lesions.COLUMNS),
            "audit.csv": (self.audited, audit.COLUMNS),
        }
        filled = {name: table for name, table in tables.items() if table[0]}
        names = [*filled, *(f"figures/{name}" for name in pictures)]
        for old in {*_former_files(self.folder)} - {*names}:
            inside(self.folder, old).unlink(missing_ok=True)
        for name, (rows, columns) in filled.items():
            write_text(inside(self.folder, name), as_csv(self._placed(rows), columns))
        for name, png in pictures.items():
            write_bytes(inside(self.folder, f"figures/{name}"), png)
        text = json.dumps(finite(dict(told) | {"files": names}), indent=2, allow_nan=False)
        write_text(self.folder / "summary.json", text + "\n")

    def tables(self, told: Mapping[str, Any]) -> list[Table]:
        """Return the tables of scores, of the audit and of lesions."""
        columns = columns_of(self.scores)
        shown = [build_table(group, columns) for group in told["groups"]]
        shown += audit.audit_tables(told["audit"])
        return [*shown, *lesions.page_tables(told["lesions"])]

    def _rows(self) -> list[Row]:
        """Return the rows of ``metrics.csv``, those that failed after the others of their run."""
        rows = [*self.scored.slices, *self.scored.failed]
        place = {str(run.folder): index for index, run in enumerate(self.runs)}
        return sorted(rows, key=lambda row: place[row["run"]])

    def _placed(self, rows: Sequence[Row]) -> list[Row]:
        """Return rows with run folders relative to the folder."""
        folders = {key for key in _FOLDERS if rows and key in rows[0]}
        return [row | {key: self._name(row[key]) for key in folders} for row in rows]

    def _name(self, run: Path | str) -> str:
        return Path(run).relative_to(self.folder).as_posix()


def evaluate(
    evaluation: Evaluation, crop: Literal["full", "width"] = "full", anatomy: str = ""
) -> Evaluation:
    """Score and audit the runs; for ``crop`` and ``anatomy`` see `mrisem.results.scores`."""
    from mrisem.data.folders import warn_without_subject
    from mrisem.metrics.volume import VolumeMetrics

    check_reference(evaluation.reference, evaluation.runs)
    metrics = VolumeMetrics(evaluation.scores)
    evaluation.scored = score_runs(evaluation.runs, evaluation.targets, metrics, crop, anatomy)
    evaluation.without_subject = _without_subject(evaluation)
    warn_without_subject(evaluation.without_subject)
    pairs, evaluation.alone = audit.find_pairs(evaluation.runs)
    for pair in track(pairs, "audit", "pairs of runs"):
        evaluation.audited += audit.audit(pair, evaluation.targets[pair.guided.folder])
    return evaluation


def _without_subject(evaluation: Evaluation) -> list[str]:
    """Return the files that name no subject, so that their own name stands for it."""
    rows = evaluation.scored.slices
    alike = [row for row in rows if row["subject"] == Path(row["file"]).stem]
    files = {evaluation.targets[Path(row["run"])] / row["file"] for row in alike}
    return sorted(file.name for file in files if not has_patient_id(file))


def audit_picture(anatomy: str, mask: str, method: str) -> str:
    """Return the file name of the picture of what a prior changed.

    >>> audit_picture("brain", "gaussian R=4", "unrolled + image_same")
    'audit_brain_gaussian_r_4_unrolled_image_same.png'
    """
    return f"audit_{slug(f'{anatomy}, {mask} {method}')}.png"


def read_told(folder: Path) -> Told | None:
    """Read ``summary.json``; None where there is none, or no table beside it."""
    path = inside(folder, "summary.json")
    if not (path.is_file() and inside(folder, "metrics.csv").is_file()):
        return None
    with reading(path, "written by mrisem evaluate", "evaluate again"):
        return Told.model_validate_json(path.read_bytes())


def _former_files(folder: Path) -> list[str]:
    """Return the optional files that an earlier evaluation wrote; none if it cannot be read."""
    try:
        told = read_told(folder)
    except ValueError:
        return []  # it is replaced, and what cannot be told is left
    listed = told.files if told and told.files else ()
    return [name for name in listed if _OURS.fullmatch(name)]


def finite(value: Any) -> Any:
    """Return a JSON-ready copy in which numbers that are not finite are None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
