"""Evaluation of the runs of a folder by `mrisem evaluate`, and the files that it writes there."""

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
from mrisem.results.reading import Failure
from mrisem.results.rows import Column, Row, as_csv, columns_of
from mrisem.results.run import Run
from mrisem.results.scores import Scored, score_runs
from mrisem.results.summary import summary_of
from mrisem.results.tables import Table, build_table
from mrisem.results.targets import has_patient_id

_FIRST = ("file", "subject", "slice", "method", "acceleration")
_LAST = (
    *("lesions", "lesion_contrast", "lesion_error"),
    *("similarity_positives", "similarity_negatives"),
    *("data_consistency", "seconds", "acquisition", "anatomy", "mask", "run", "failed"),
)
# Optional files of an evaluation: the next one removes those that it does not write again.
_OPTIONAL = re.compile(r"(lesions|audit)\.csv|figures/audit_[a-z0-9_]+\.png")
_FOLDERS = ("run", "without_run")  # columns that hold run folders


class FailedSlices(Failure):
    """Slices of a run that failed, in ``summary.json``."""

    run: str
    file: FileName


class StoredSummary(BaseModel):
    """Part of ``summary.json`` that is read again.

    Args:
        columns: name of a column of numbers -> its description.
        targets: run folder, relative to the evaluated folder -> folder of its targets.
        command: command line of the evaluation.
        failed: slices that failed.
        files: names of the files that it wrote; None: an earlier version did not list them.
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
        folder: run folder, or folder above several run folders.
        runs: labelled runs in or below it.
        targets: run folder -> folder of its targets.
        scores: column -> its score.
        scored: rows of slices, volumes and lesions.
        audited: rows of runs with a prior.
        alone: runs with a prior for which there is no run without it.
        reference: label of the run that all are tested against; None: see
            `mrisem.results.labels.reference_of`.
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
        """Slices that failed, with one entry for each message of a file."""
        slices_of: dict[tuple[str, str, str], list[int]] = {}
        # a fit that was given up has an image and scores as well
        given_up = [row for row in self.scored.slices if "failed" in row]
        for row in (*given_up, *self.scored.failed):
            key = (self._name(row["run"]), row["file"], row["failed"])
            slices_of.setdefault(key, []).extend([] if row["slice"] is None else [row["slice"]])
        return [
            FailedSlices(run=run, file=file, slices=tuple(slices), message=message)
            for (run, file, message), slices in slices_of.items()
        ]

    def summary(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of ``summary.json``, with further facts."""
        columns = columns_of(self.scores)
        summary = summary_of(self.scored.slices, columns, self.runs, self.reference)
        return summary | {
            "targets": {self._name(run): str(folder) for run, folder in self.targets.items()},
            "reference": self.reference,
            "audit": audit.audit_summary(self.audited),
            "lesions": lesions.lesion_tables(self.scored.lesions, self.runs, self.reference),
            "failed": [entry.model_dump() for entry in self.failed],
            "files_without_patient_id": self.without_subject,
            **facts,
        }

    def write(self, summary: Mapping[str, Any], pictures: Mapping[str, bytes]) -> None:
        """Write the tables, the pictures, and ``summary.json`` with a list of them.

        Optional files of an earlier evaluation that this one does not write are removed.

        Args:
            summary: content of ``summary.json``, see `summary`.
            pictures: file name -> PNG.
        """
        tables = {
            "metrics.csv": (self._rows(), (*_FIRST, *self.scores, *_LAST)),
            "volumes.csv": (self.scored.volumes, tuple(next(iter(self.scored.volumes), ()))),
            "lesions.csv": (self.scored.lesions, lesions.COLUMNS),
            "audit.csv": (self.audited, audit.COLUMNS),
        }
        filled = {name: table for name, table in tables.items() if table[0]}
        names = [*filled, *(f"figures/{name}" for name in pictures)]
        for name in {*_former_files(self.folder)} - {*names}:
            inside(self.folder, name).unlink(missing_ok=True)
        for name, (rows, columns) in filled.items():
            write_text(inside(self.folder, name), as_csv(self._relative(rows), columns))
        for name, png in pictures.items():
            write_bytes(inside(self.folder, f"figures/{name}"), png)
        # the summary last: it lists only files that exist
        text = json.dumps(finite(dict(summary) | {"files": names}), indent=2, allow_nan=False)
        write_text(self.folder / "summary.json", text + "\n")

    def tables(self, summary: Mapping[str, Any]) -> list[Table]:
        """Return the tables of scores, of the audit and of lesions."""
        columns = columns_of(self.scores)
        tables = [build_table(group, columns) for group in summary["groups"]]
        tables += audit.audit_tables(summary["audit"])
        return [*tables, *lesions.page_tables(summary["lesions"])]

    def _rows(self) -> list[Row]:
        """Return the rows of ``metrics.csv``; failed slices stand after the others of their run."""
        rows = [*self.scored.slices, *self.scored.failed]
        order = {str(run.folder): index for index, run in enumerate(self.runs)}
        return sorted(rows, key=lambda row: order[row["run"]])

    def _relative(self, rows: Sequence[Row]) -> list[Row]:
        """Return rows whose run folders are relative to the evaluated folder."""
        folders = {key for key in _FOLDERS if rows and key in rows[0]}
        return [row | {key: self._name(row[key]) for key in folders} for row in rows]

    def _name(self, run: Path | str) -> str:
        """Return the path of a run folder relative to the evaluated folder."""
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
    """Return the files without ``patient_id``, whose name counts as the subject."""
    rows = evaluation.scored.slices
    # only these are opened: another subject was read from the file
    named_alike = [row for row in rows if row["subject"] == Path(row["file"]).stem]
    files = {evaluation.targets[Path(row["run"])] / row["file"] for row in named_alike}
    return sorted(file.name for file in files if not has_patient_id(file))


def audit_picture(anatomy: str, mask: str, method: str) -> str:
    """Return the file name of the picture that shows the changes by a prior.

    >>> audit_picture("brain", "gaussian R=4", "unrolled + image_same")
    'audit_brain_gaussian_r_4_unrolled_image_same.png'
    """
    return f"audit_{slug(f'{anatomy}, {mask} {method}')}.png"


def read_summary(folder: Path) -> StoredSummary | None:
    """Read ``summary.json``; None: the folder was not evaluated."""
    path = inside(folder, "summary.json")
    if not (path.is_file() and inside(folder, "metrics.csv").is_file()):
        return None
    with reading(path, "written by mrisem evaluate", "evaluate again"):
        return StoredSummary.model_validate_json(path.read_bytes())


def _former_files(folder: Path) -> list[str]:
    """Return the optional files of an earlier evaluation; empty if its summary is damaged."""
    try:
        summary = read_summary(folder)
    except ValueError:
        return []  # the summary is replaced, and files of unknown origin stay
    listed = summary.files if summary and summary.files else ()
    return [name for name in listed if _OPTIONAL.fullmatch(name)]


def finite(value: Any) -> Any:
    """Return a copy in which NaN and infinity are None, since JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
