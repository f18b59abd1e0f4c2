"""Tables of numbers as CSV files, and what their columns mean."""

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
from mrisem.results.inside import defused, fused, plain_name

Row = dict[str, Any]
TEXT_COLUMNS = {
    *("file", "subject", "method", "acquisition", "anatomy", "mask", "run", "failed"),
    *("without", "without_run"),  # of audit.csv
}
_COUNTS = {"slice", "lesion"}
NEEDED = ("file", "slice", "method", "anatomy", "mask", "run", "subject")
GROUP_COLUMNS = ("anatomy", "mask")


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Args:
        name: heading in ``metrics.csv``.
        label: words in tables and on axes.
        better: which values are; None: neither way.
        digits: decimals shown.
        network: network whose features the score compares; None: of no network.
    """

    name: str
    label: str
    better: Better | None
    digits: Annotated[int, Field(ge=0, le=12)]
    network: str | None = None

    @property
    def heading(self) -> str:
        """Label and an arrow that says which way better values lie."""
        return self.label + {"higher": " ↑", "lower": " ↓", None: ""}[self.better]

    @property
    def title(self) -> str:
        """Label and direction in words, above a figure."""
        return f"{self.label}, {self.better} is better" if self.better else self.label


SECONDS = Column("seconds", "s / slice", "lower", 2)  # neither tested nor drawn
# What reconstructions wrote down, and what only some slices have: those with lesions marked in the
# target, those that a prior guided.
_MORE = (
    Column("lesion_error", "lesion NMSE", "lower", 4),
    Column("similarity_positives", "similarity to positives", "higher", 3),
    Column("similarity_negatives", "similarity to negatives", "lower", 3),
    Column("data_consistency", "data residual", "lower", 4),
    SECONDS,
)


def columns_of(scores: Mapping[str, Score]) -> list[Column]:
    """Return the number columns of a table of these scores."""
    shown = (
        Column(name, score.label, score.better, score.digits, _network(score))
        for name, score in scores.items()
    )
    return [*shown, *_MORE]


def _network(score: Score) -> str | None:
    name = getattr(score.function, "network", None)
    return name if isinstance(name, str) else None


def read_rows(path: Path) -> list[Row]:
    """Read ``metrics.csv`` and its like, without the slices that have no image."""
    return [row for row in read_table(path, NEEDED[:3]) if is_scored(row)]


def is_scored(row: Row) -> bool:
    """Whether a slice has an image: one whose fit was given up has its last good one."""
    return not row.get("failed") or not math.isnan(row.get("acceleration", math.nan))


def read_table(path: Path, needed: Collection[str] = NEEDED) -> list[Row]:
    """Read ``metrics.csv`` and its like: empty cells of numbers as NaN.

    Args:
        path: the table.
        needed: columns that it must have.

    Raises:
        InputError: the file is damaged.
    """
    with (
        reading(path, "a table of mrisem evaluate", "evaluate again"),
        path.open(newline="", encoding="utf-8") as stream,
    ):
        table = csv.DictReader(stream, strict=True)
        missing = {*needed} - {*(table.fieldnames or ())}
        if missing:
            raise InputError(f"{path} must have columns {sorted(missing)}; evaluate again")
        return [{name: _read(name, text) for name, text in line.items()} for line in table]


def _read(name: str | None, text: str | None) -> Any:
    if name is None or text is None:
        raise ValueError("a line has more or fewer cells than the heading")
    if name in TEXT_COLUMNS:
        return plain_name(fused(text)) if name == "file" else fused(text)
    if name in _COUNTS:
        return int(text) if text else None
    return float(text) if text else math.nan


def as_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return these columns of the rows as CSV: None and NaN as empty cells, text `defused`."""
    cells = ([_cell(row.get(name)) for name in columns] for row in rows)
    return "".join(map(_line, [columns, *cells]))


def _line(cells: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerow(cells)  # ends in "\r\n", so both are quoted
    return stream.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return defused(value)
    if value is None or math.isnan(value):
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


def labels_of(rows: Sequence[Row]) -> list[str]:
    """Return the methods of the rows in their order, which is that of tables."""
    return list(dict.fromkeys(row["method"] for row in rows))


def subject_of(row: Row) -> tuple[str, str]:
    """Return what tells a row's subject from others: anatomy and name, that of its file if empty.

    A subject belongs to one anatomy.
    """
    return row["anatomy"], row["subject"] or Path(row["file"]).stem


def group_rows(
    rows: Sequence[Row], keys: Sequence[str] = GROUP_COLUMNS
) -> dict[tuple[str, ...], list[Row]]:
    """Split the rows into what may be compared: one anatomy and one sampling mask."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return dict(sorted(groups.items()))


def value(row: Row, column: Column) -> float:
    """Return a row's number, NaN when the cell is missing or empty."""
    number = row.get(column.name)
    return math.nan if number is None else float(number)
