"""Tables of scores as CSV files, and the description of their columns."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mrisem.errors import InputError
from mrisem.files import reading
from mrisem.metrics.score import Better, Score
from mrisem.results.inside import escape_formula, plain_name, unescape_formula

Row = dict[str, Any]
# Columns of text; all others hold numbers.
TEXT_COLUMNS = {
    *("file", "subject", "method", "acquisition", "anatomy", "mask", "run", "failed"),
    *("without", "without_run"),  # of audit.csv
}
_COUNTS = {"slice", "lesion"}
NEEDED = ("file", "slice", "method", "anatomy", "mask", "run", "subject")
GROUP_COLUMNS = ("anatomy", "mask")


@dataclass(frozen=True)
class Column:
    """Description of a column of numbers.

    Args:
        name: heading in ``metrics.csv``.
        label: text in tables and on axes.
        better: ``higher`` or ``lower``, the better values; None: neither.
        digits: number of decimals shown.
        network: network whose features the score compares; None: none.
    """

    name: str
    label: str
    better: Better | None
    digits: Annotated[int, Field(ge=0, le=12)]
    network: str | None = None

    @property
    def heading(self) -> str:
        """Label, and an arrow towards better values."""
        return self.label + {"higher": " ↑", "lower": " ↓", None: ""}[self.better]

    @property
    def title(self) -> str:
        """Label and direction in words, as the title of a figure."""
        return f"{self.label}, {self.better} is better" if self.better else self.label


SECONDS = Column("seconds", "s / slice", "lower", 2)  # neither tested nor drawn
# Columns beside the scores: written by reconstructions, or only for slices with lesions marked in
# the target or with a prior.
_MORE = (
    Column("lesion_error", "lesion NMSE", "lower", 4),
    Column("similarity_positives", "similarity to positives", "higher", 3),
    Column("similarity_negatives", "similarity to negatives", "lower", 3),
    Column("data_consistency", "data residual", "lower", 4),
    SECONDS,
)


def columns_of(scores: Mapping[str, Score]) -> list[Column]:
    """Return the columns of numbers of a table with these scores."""
    shown = (
        Column(name, score.label, score.better, score.digits, _network(score))
        for name, score in scores.items()
    )
    return [*shown, *_MORE]


def _network(score: Score) -> str | None:
    """Return the network whose features a score compares; None: none."""
    name = getattr(score.function, "network", None)
    return name if isinstance(name, str) else None


def read_rows(path: Path) -> list[Row]:
    """Read ``metrics.csv`` or a similar table, without the slices that have no image."""
    return [row for row in read_table(path, NEEDED[:3]) if is_scored(row)]


def is_scored(row: Row) -> bool:
    """Return whether the slice of a row has an image."""
    # a fit that was given up is marked as failed, and keeps its last good image
    return not row.get("failed") or not math.isnan(row.get("acceleration", math.nan))


def read_table(path: Path, needed: Collection[str] = NEEDED) -> list[Row]:
    """Read ``metrics.csv`` or a similar table, with NaN for empty cells of numbers.

    Args:
        path: the table.
        needed: columns that it must have.

    Raises:
        InputError: when the file is damaged or lacks a column.
    """
    with (
        reading(path, "a table of mrisem evaluate", "evaluate again"),
        path.open(newline="", encoding="utf-8") as stream,
    ):
        table = csv.DictReader(stream, strict=True)
        missing = {*needed} - {*(table.fieldnames or ())}
        if missing:
            raise InputError(
                f"{path} must have columns {sorted(needed)}, got none of {sorted(missing)}; "
                "evaluate again"
            )
        return [{name: _read(name, text) for name, text in line.items()} for line in table]


def _read(name: str | None, text: str | None) -> Any:
    """Convert a cell to the type of its column."""
    # DictReader gives None for the cells of a line that is too long or too short
    if name is None or text is None:
        raise ValueError("a line has more or fewer cells than the heading")
    # a table may come from anywhere: its file names must not lead to other folders
    if name in TEXT_COLUMNS:
        return plain_name(unescape_formula(text)) if name == "file" else unescape_formula(text)
    if name in _COUNTS:
        return int(text) if text else None
    return float(text) if text else math.nan


def as_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return these columns of the rows as CSV, with empty cells for None and NaN."""
    cells = ([_cell(row.get(name)) for name in columns] for row in rows)
    return "".join(map(_line, [columns, *cells]))


def _line(cells: Sequence[str]) -> str:
    """Return a line of CSV that ends in a line feed."""
    stream = io.StringIO()
    # the writer quotes characters of its own line ending, and so both of them
    csv.writer(stream).writerow(cells)
    return stream.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: Any) -> str:
    """Return a value as text; numbers keep all digits."""
    if isinstance(value, str):
        return escape_formula(value)
    if value is None or math.isnan(value):
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


def labels_of(rows: Sequence[Row]) -> list[str]:
    """Return the methods of the rows in the order of their first rows, which is that of tables."""
    return list(dict.fromkeys(row["method"] for row in rows))


def subject_of(row: Row) -> tuple[str, str]:
    """Return anatomy and name of a row's subject; without a name, the stem of its file."""
    # numbers of subjects may repeat between data sets of several anatomies
    return row["anatomy"], row["subject"] or Path(row["file"]).stem


def group_rows(
    rows: Sequence[Row], keys: Sequence[str] = GROUP_COLUMNS
) -> dict[tuple[str, ...], list[Row]]:
    """Split rows into groups that may be compared: by default of one anatomy and mask."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return dict(sorted(groups.items()))


def value(row: Row, column: Column) -> float:
    """Return the number of a row in a column; NaN: the cell is missing or empty."""
    number = row.get(column.name)
    return math.nan if number is None else float(number)
