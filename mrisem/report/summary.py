"""Rows of scores to means and paired tests: what `summary.json` holds."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mrisem.metrics.score import Better, Score
from mrisem.metrics.statistics import holm, paired_test, summarise
from mrisem.report.runs import method_order

Row = dict[str, Any]
TEXT_COLUMNS = {
    *("file", "method", "acquisition", "anatomy", "mask", "run"),
    *("without", "without_run"),  # of audit.csv
}
GROUP_COLUMNS = ("anatomy", "mask")


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Args:
        name: in ``metrics.csv``.
        label: in tables and on axes.
        better: direction of better values; None: neither way is better.
        digits: decimals shown.
    """

    name: str
    label: str
    better: Better | None
    digits: int

    @property
    def arrow(self) -> str:
        """Which way better values lie."""
        return {"higher": "↑", "lower": "↓", None: ""}[self.better]

    @property
    def heading(self) -> str:
        """Label and arrow."""
        return f"{self.label} {self.arrow}".rstrip()


# Columns that the reconstruction itself wrote down; only the first is tested.
RESIDUAL = Column("data_consistency", "data residual", "lower", 4)
SECONDS = Column("seconds", "s / slice", "lower", 2)
# What only some slices have: those with lesions marked in the target, those that a prior guided.
LESION_ERROR = Column("lesion_error", "lesion NMSE", "lower", 4)
SIMILARITIES = (
    Column("similarity_positives", "similarity to positives", "higher", 3),
    Column("similarity_negatives", "similarity to negatives", "lower", 3),
)


def columns_of(scores: Mapping[str, Score]) -> list[Column]:
    """Return the number columns of a table of these scores."""
    made = [Column(name, s.label, s.better, s.digits) for name, s in scores.items()]
    return [*made, LESION_ERROR, *SIMILARITIES, RESIDUAL, SECONDS]


def read_rows(path: Path) -> list[Row]:
    """Read ``metrics.csv``: numbers as float (slice as int), empty cells as NaN."""
    with path.open(newline="") as file:
        return [
            {key: _cell(key, text) for key, text in row.items()} for row in csv.DictReader(file)
        ]


def _cell(key: str, text: str) -> str | int | float:
    if key in TEXT_COLUMNS:
        return text
    if key == "slice":
        return int(text)
    return float(text) if text else float("nan")


def labels_of(rows: Sequence[Row]) -> list[str]:
    """Return the methods of the rows in table order."""
    return sorted({row["method"] for row in rows}, key=method_order)


def group_rows(rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    """Split the rows into what may be compared: one anatomy and one sampling mask."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in GROUP_COLUMNS), []).append(row)
    return dict(sorted(groups.items()))


def method_summaries(rows: Sequence[Row], columns: Sequence[Column]) -> dict[str, dict[str, Any]]:
    """Return ``{method: {column: {mean, std, n, low, high}}}``; intervals resample whole files."""
    summaries = {}
    for label in labels_of(rows):
        own = [row for row in rows if row["method"] == label]
        files = [row["file"] for row in own]
        summaries[label] = {
            column.name: summarise([value(row, column) for row in own], files) for column in columns
        }
    return summaries


def value(row: Row, column: Column) -> float:
    """Return a row's number, NaN when the cell is missing or empty."""
    number = row.get(column.name)
    return float("nan") if number is None else float(number)


def reference_of(label: str, labels: Sequence[str], wanted: str | None = None) -> str | None:
    """Return the method that ``label`` is tested against.

    ``wanted`` when given; else the same method without what was added last, such as a prior, else
    zero-filled, else the first. Of several variants of it, the one that shares most settings and
    has fewest of its own. None for the reference itself.

    >>> reference_of("unrolled + image_same", ["zero_filled", "unrolled", "unrolled + image_same"])
    'unrolled'
    >>> reference_of("unrolled", ["zero_filled", "unrolled"])
    'zero_filled'
    >>> reference_of("tv + x [seed=1, w=2]", ["tv [seed=0]", "tv [seed=1]", "tv + x [seed=1, w=2]"])
    'tv [seed=1]'
    """
    if wanted is None:
        method, settings = _parts(label)
        base = method.rpartition(" + ")[0]
        plain = [other for other in labels if base and _parts(other)[0] == base]
        candidates = sorted(plain, key=lambda other: _distance(_parts(other)[1], settings))
        candidates += [other for other in labels if other.startswith("zero_filled")]
        wanted = [*candidates, labels[0]][0]
    return None if wanted == label else wanted


def _parts(label: str) -> tuple[str, set[str]]:
    """Split ``method [key=value, key=value]`` into the method and its settings."""
    method, _, settings = label.partition(" [")
    return method, set(settings.removesuffix("]").split(", ")) - {""}


def _distance(settings: set[str], wanted: set[str]) -> tuple[int, int]:
    return len(wanted - settings), len(settings - wanted)


def paired_tests(
    rows: Sequence[Row], columns: Sequence[Column], wanted: str | None = None
) -> list[dict[str, Any]]:
    """Test every method against its reference on the slices that both have.

    ``p_holm`` is corrected over all tests of one metric (`mrisem.metrics.statistics.holm`).

    Args:
        rows: rows of ``metrics.csv``.
        columns: what to test; `SECONDS` and what has no better are left out.
        wanted: one reference for all, or None (see `reference_of`).
    """
    labels = labels_of(rows)
    by_method: dict[str, dict[tuple[Any, ...], Row]] = {label: {} for label in labels}
    for row in rows:
        by_method[row["method"]][_slice_key(row)] = row
    tests: list[dict[str, Any]] = []
    for label in labels:
        reference = reference_of(label, labels, wanted)
        if reference is None:
            continue
        shared = sorted(by_method[label].keys() & by_method[reference].keys())
        for column in columns:
            if column == SECONDS or column.better is None:
                continue
            own = [value(by_method[label][key], column) for key in shared]
            other = [value(by_method[reference][key], column) for key in shared]
            known = {"metric": column.name, "method": label, "reference": reference}
            tests.append({**known, **paired_test(own, other, column.better).as_row()})
    return corrected(tests)


def corrected(tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tests, each with ``p_holm``, corrected over all tests of its metric."""
    families: dict[str, list[int]] = {}
    for index, test in enumerate(tests):
        families.setdefault(test["metric"], []).append(index)
    p_holm: dict[int, float | None] = {}
    for family in families.values():
        found = holm([tests[index]["p_value"] for index in family])
        p_holm |= dict(zip(family, found, strict=True))
    return [test | {"p_holm": p_holm[index]} for index, test in enumerate(tests)]


def _slice_key(row: Row) -> tuple[Any, ...]:
    return (*(row[key] for key in GROUP_COLUMNS), row["file"], row["slice"])


def summary_of(
    rows: Sequence[Row], columns: Sequence[Column], wanted: str | None = None
) -> dict[str, Any]:
    """Return the scores' part of `summary.json`: all together, and each comparable group."""
    groups = [
        dict(zip(GROUP_COLUMNS, key, strict=True))
        | {
            "methods": method_summaries(members, columns),
            "paired_tests": paired_tests(members, columns, wanted),
        }
        for key, members in group_rows(rows).items()
    ]
    return {
        "columns": {column.name: asdict(column) for column in columns},
        "methods": method_summaries(rows, columns),
        "paired_tests": paired_tests(rows, columns, wanted),
        "groups": groups,
    }
