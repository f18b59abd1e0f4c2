"""Methods by numbers as a table: cells with marks; as text, CSV and LaTeX."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mrisem.results import rows as numbers
from mrisem.results.inside import one_line
from mrisem.results.rows import Column

DASH = "\N{EN DASH}"
_TEST_KEYS = ("reference", "mean_difference", "p_value", "share_better", "p_holm")
_TEX = {char: rf"\{char}" for char in "_%&#${}"}
_TEX |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
_TEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"}
_TEX |= {"±": r"$\pm$", DASH: "--", "↑": r"$\uparrow$", "↓": r"$\downarrow$"}
Summary = Mapping[str, Any]  # of mrisem.metrics.statistics.summarise


@dataclass(frozen=True)
class Cell:
    """One number of the table."""

    summary: Summary  # over slices
    text: str  # mean and standard deviation as shown
    interval: str  # of the mean as shown; or an empty string
    best: bool  # the column's best mean, among two methods or more
    test: Mapping[str, Any]  # against the method's reference; empty for none


@dataclass(frozen=True)
class TableRow:
    """One method of the table; cells in the order of the columns."""

    method: str
    n_subjects: int
    n: int  # of what the table counts
    reference: str | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Methods by numbers, of slices that may be compared; columns without a number are left out."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    counted: str  # slices or lesions

    @property
    def reasons(self) -> list[str]:
        """Why some of its tests have no p-value."""
        reasons = {cell.test.get("reason") for row in self.rows for cell in row.cells}
        return sorted(filter(None, reasons))

    def frame(self, show: Callable[[Cell], str]) -> pd.DataFrame:
        """Return methods by counts and columns, each cell as ``show`` writes it."""
        lines = [[row.n_subjects, row.n, *map(show, row.cells)] for row in self.rows]
        headings = ["subjects", self.counted, *(column.heading for column in self.columns)]
        return pd.DataFrame(lines, [row.method for row in self.rows], headings)


def mean_text(summary: Summary, digits: int) -> tuple[str, str]:
    """Return ``mean ± std``, or a dash, and ``[low, high]``, or an empty string.

    >>> mean_text({"mean": 31.257, "std": 2.0, "low": 30.104, "high": 32.5}, 2)
    ('31.26 ± 2.00', '[30.10, 32.50]')
    """
    mean, std, low, high = (
        None if summary[key] is None else f"{summary[key]:.{digits}f}"
        for key in ("mean", "std", "low", "high")
    )
    spread = "" if std is None else f" ± {std}"
    return DASH if mean is None else mean + spread, "" if low is None else f"[{low}, {high}]"


def build_table(
    group: Mapping[str, Any],
    columns: Sequence[Column],
    show: Callable[[Summary, int], tuple[str, str]] = mean_text,
    counted: str = "slices",
) -> Table:
    """Make the table of one entry of a summary's ``groups``.

    Args:
        group: ``anatomy``, ``mask``, ``methods`` (method to column to summary), ``paired_tests``.
        columns: Columns of numbers.
        show: summary and digits to text and interval of a cell.
        counted: what the values are of: slices or lesions.
    """
    methods = group["methods"]
    filled = tuple(c for c in columns if any(m[c.name]["n_subjects"] for m in methods.values()))
    best = {column.name: _best(methods, column) for column in filled}
    rows = []
    for label, summaries in methods.items():
        tests = {test["metric"]: test for test in group["paired_tests"] if test["method"] == label}
        cells = [
            Cell(
                summaries[column.name],
                *show(summaries[column.name], column.digits),
                best=label in best[column.name],
                test=tests.get(column.name, {}),
            )
            for column in filled
        ]
        reference = next((test["reference"] for test in tests.values()), None)
        n_subjects, n = (
            max((cell.summary[f"n_{what}"] for cell in cells), default=0)
            for what in ("subjects", counted)
        )
        rows.append(TableRow(label, n_subjects, n, reference, tuple(cells)))
    title = ", ".join(filter(None, (group["anatomy"], group["mask"])))
    return Table(title or "all slices", filled, tuple(rows), counted)


def _best(methods: Mapping[str, Any], column: Column) -> set[str]:
    means = {m: s[column.name]["mean"] for m, s in methods.items()}
    shown = {m: round(mean, column.digits) for m, mean in means.items() if mean is not None}
    plain = column.better is None or column == numbers.SECONDS  # the fastest is no finding
    if plain or len(set(shown.values())) < 2:
        return set()
    pick = max if column.better == "higher" else min
    return {method for method, mean in shown.items() if mean == pick(shown.values())}


def p_text(p: float) -> str:
    """Return a p-value as shown.

    >>> p_text(0.00001), p_text(0.0321)
    ('p < 0.001', 'p = 0.032')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def as_text(table: Table) -> str:
    """Return the table as aligned plain text, the best values starred.

    Below a method that was tested stand its p-values, corrected over the methods of the table.
    """
    means = table.frame(lambda cell: cell.text + (" *" if cell.best else "  "))
    lines = []
    for place, row in enumerate(table.rows):
        lines.append(means.iloc[[place]])
        p_values = [cell.test.get("p_holm") for cell in row.cells]
        if any(p is not None for p in p_values):
            texts = ["" if p is None else f"{p_text(p)}  " for p in p_values]
            names = ([f"  against {row.reference}"], means.columns)
            lines.append(pd.DataFrame([["", "", *texts]], *names))
    text = pd.concat(lines).rename_axis(columns="method").to_string()
    reasons = f"\nno p-value where: {'; '.join(table.reasons)}" if table.reasons else ""
    return f"{one_line(table.title)}\n{text}{reasons}"


def as_csv(tables: Sequence[Table]) -> str:
    """Return all tables in long form: one line a group, method and metric."""
    lines = [
        {"group": table.title, "method": row.method, "metric": column.name}
        | {"n_subjects": row.n_subjects, f"n_{table.counted}": row.n}
        | {"mean": cell.summary["mean"], "std": cell.summary["std"], "best": int(cell.best)}
        | {key: cell.test.get(key) for key in _TEST_KEYS}
        | {"low": cell.summary["low"], "high": cell.summary["high"]}
        for table in tables
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
    ]
    names = ("group", "method", "metric", "n_subjects", "n_slices", "n_lesions", "mean", "std")
    return numbers.as_csv(lines, (*names, "best", *_TEST_KEYS, "low", "high"))


def as_latex(tables: Sequence[Table]) -> str:
    """Return the tables as LaTeX ``tabular`` of the package booktabs, the best values bold."""
    blocks = []
    for table in tables:
        frame = table.frame(_tex_cell).rename(index=_tex, columns=_tex).reset_index(names="method")
        block = frame.to_latex(index=False, column_format=f"lrr{'r' * len(table.columns)}")
        blocks.append(f"% {one_line(table.title)}\n{block}")
    return "\n".join(blocks)


def _tex(text: str) -> str:
    return "".join(_TEX.get(char, char) for char in one_line(text))


def _tex_cell(cell: Cell) -> str:
    return rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text)
