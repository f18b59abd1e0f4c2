"""Rows of scores to means and paired tests: what `summary.json` holds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mrisem.errors import InputError
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
    """A column of numbers."""

    name: str  # in metrics.csv
    label: str  # in tables and on axes
    better: Better | None  # None: neither way is better
    digits: int  # decimals shown

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
    return [*(Column(name, s.label, s.better, s.digits) for name, s in scores.items()), *_MORE]


def read_rows(path: Path) -> list[Row]:
    """Read ``metrics.csv`` and its like: empty cells of numbers as NaN."""
    text = dict.fromkeys(TEXT_COLUMNS, "object")
    frame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    filled = frame.fillna(dict.fromkeys(TEXT_COLUMNS & {*frame.columns}, ""))
    rows: list[Row] = filled.to_dict("records")
    return rows


def rows_as_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return these columns of the rows as CSV; None and NaN as empty cells."""
    frame = pd.DataFrame(rows, columns=list(columns), dtype=object)
    return str(frame.to_csv(index=False, lineterminator="\n"))


def labels_of(rows: Sequence[Row]) -> list[str]:
    """Return the methods of the rows in table order."""
    return sorted({row["method"] for row in rows}, key=method_order)


def check_reference(reference: str | None, rows: Sequence[Row]) -> None:
    """Raise InputError unless the reference is None or one of the methods."""
    labels = labels_of(rows)
    if reference is not None and reference not in labels:
        raise InputError(f"reference must be one of {labels}, got {reference!r}")


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
    return float("nan") if number is None else float(number)


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

        def distance(other: str) -> tuple[int, int]:
            others = _parts(other)[1]
            return len(settings - others), len(others - settings)

        plain = [other for other in labels if base and _parts(other)[0] == base]
        zero_filled = [other for other in labels if other.startswith("zero_filled")]
        wanted = [*sorted(plain, key=distance), *zero_filled, labels[0]][0]
    return None if wanted == label else wanted


def _parts(label: str) -> tuple[str, set[str]]:
    """Split ``method [key=value, key=value]`` into the method and its settings."""
    method, _, settings = label.partition(" [")
    return method, set(settings.removesuffix("]").split(", ")) - {""}


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
    slices: dict[str, dict[tuple[Any, ...], Row]] = {label: {} for label in labels}
    for row in rows:
        slices[row["method"]][tuple(row[key] for key in (*GROUP_COLUMNS, "file", "slice"))] = row
    tests: list[dict[str, Any]] = []
    for label in labels:
        reference = reference_of(label, labels, wanted)
        if reference is None:
            continue
        shared = sorted(slices[label].keys() & slices[reference].keys())
        for column in columns:
            if column == SECONDS or column.better is None:
                continue
            own, other = (
                [value(slices[method][key], column) for key in shared]
                for method in (label, reference)
            )
            facts = {"metric": column.name, "method": label, "reference": reference}
            tests.append({**facts, **paired_test(own, other, column.better).as_row()})
    return corrected(tests)


def corrected(tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each test its ``p_holm``, corrected over all tests of its metric."""
    for metric in {test["metric"] for test in tests}:
        family = [test for test in tests if test["metric"] == metric]
        for test, p in zip(family, holm([test["p_value"] for test in family]), strict=True):
            test["p_holm"] = p
    return tests


def summary_of(
    rows: Sequence[Row], columns: Sequence[Column], wanted: str | None = None
) -> dict[str, Any]:
    """Return the scores' part of `summary.json`: all together, and each comparable group."""

    def scores(members: Sequence[Row]) -> dict[str, Any]:
        return {
            "methods": method_summaries(members, columns),
            "paired_tests": paired_tests(members, columns, wanted),
        }

    groups = [
        dict(zip(GROUP_COLUMNS, key, strict=True)) | scores(members)
        for key, members in group_rows(rows).items()
    ]
    named = {column.name: asdict(column) for column in columns}
    return {"columns": named, **scores(rows), "groups": groups}
