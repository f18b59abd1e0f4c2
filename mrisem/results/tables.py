"""Tables of methods and their scores, as text, CSV and LaTeX."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mrisem.results import rows as numbers
from mrisem.results.inside import one_line
from mrisem.results.rows import Column

DASH = "\N{EN DASH}"
# keys of a test that CSV files repeat
_TEST_KEYS = ("reference", "mean_difference", "p_value", "share_better", "p_holm")
_TEX = {char: rf"\{char}" for char in "_%&#${}"}
_TEX |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
_TEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"}
_TEX |= {"±": r"$\pm$", DASH: "--", "↑": r"$\uparrow$", "↓": r"$\downarrow$"}
Summary = Mapping[str, Any]  # result of mrisem.metrics.statistics.summarise


@dataclass(frozen=True)
class Cell:
    """Score of one method.

    Args:
        summary: summary over slices.
        text: mean and standard deviation, as shown.
        interval: interval of the mean, as shown; empty: none.
        best: whether the mean is the best of at least two methods.
        test: test against the method's reference; empty: none.
    """

    summary: Summary
    text: str
    interval: str
    best: bool
    test: Mapping[str, Any]


@dataclass(frozen=True)
class TableRow:
    """Scores of one method.

    Args:
        method: label of the method.
        n_subjects: number of subjects.
        n: number of slices or lesions, see `Table.counted`.
        reference: label of the reference; None: the method is not tested.
        cells: scores in the order of the columns.
    """

    method: str
    n_subjects: int
    n: int
    reference: str | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Scores of methods on comparable slices; columns without any number are left out.

    Args:
        title: title of the table.
        columns: description of the columns.
        rows: rows of the methods.
        counted: entity that the rows count, ``slices`` or ``lesions``.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    counted: str

    @property
    def reasons(self) -> list[str]:
        """Reasons for which some tests have no p-value."""
        reasons = {cell.test.get("reason") for row in self.rows for cell in row.cells}
        return sorted(filter(None, reasons))

    def frame(self, show: Callable[[Cell], str]) -> pd.DataFrame:
        """Return methods by counts and columns, with the text of ``show`` for each cell."""
        lines = [[row.n_subjects, row.n, *map(show, row.cells)] for row in self.rows]
        headings = ["subjects", self.counted, *(column.heading for column in self.columns)]
        return pd.DataFrame(lines, [row.method for row in self.rows], headings)


def mean_text(summary: Summary, digits: int) -> tuple[str, str]:
    """Return ``mean ± std`` (a dash without a mean) and ``[low, high]`` (empty without limits).

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
        group: mapping with ``anatomy``, ``mask``, ``methods`` (method -> column -> summary) and
            ``paired_tests``.
        columns: columns of numbers.
        show: function (summary, digits) -> text and interval of a cell.
        counted: entity that the rows count, ``slices`` or ``lesions``.
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
            # some scores are missing for some slices: the row counts those of the fullest cell
            max((cell.summary[f"n_{entity}"] for cell in cells), default=0)
            for entity in ("subjects", counted)
        )
        rows.append(TableRow(label, n_subjects, n, reference, tuple(cells)))
    title = ", ".join(filter(None, (group["anatomy"], group["mask"])))
    return Table(title or "all slices", filled, tuple(rows), counted)


def _best(methods: Mapping[str, Any], column: Column) -> set[str]:
    """Return the methods with the best mean; empty: no method is better than another."""
    means = {m: s[column.name]["mean"] for m, s in methods.items()}
    # as shown: methods that differ only in further digits are equally good
    shown = {m: round(mean, column.digits) for m, mean in means.items() if mean is not None}
    has_no_best = column.better is None or column == numbers.SECONDS  # speed is no finding
    if has_no_best or len(set(shown.values())) < 2:
        return set()
    pick = max if column.better == "higher" else min
    return {method for method, mean in shown.items() if mean == pick(shown.values())}


def p_text(p: float) -> str:
    """Return a p-value as text.

    >>> p_text(0.00001), p_text(0.0321)
    ('p < 0.001', 'p = 0.032')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def as_text(table: Table) -> str:
    """Return the table as aligned plain text, with a star at the best values.

    Below a tested method follow its p-values, corrected over the methods of the table.
    """
    means = table.frame(lambda cell: cell.text + (" *" if cell.best else "  "))
    lines = []
    for index, row in enumerate(table.rows):
        lines.append(means.iloc[[index]])
        p_values = [cell.test.get("p_holm") for cell in row.cells]
        if any(p is not None for p in p_values):
            texts = ["" if p is None else f"{p_text(p)}  " for p in p_values]
            names = ([f"  against {row.reference}"], means.columns)
            lines.append(pd.DataFrame([["", "", *texts]], *names))
    text = pd.concat(lines).rename_axis(columns="method").to_string()
    reasons = f"\nno p-value where: {'; '.join(table.reasons)}" if table.reasons else ""
    return f"{one_line(table.title)}\n{text}{reasons}"


def as_csv(tables: Sequence[Table]) -> str:
    """Return all tables in long form: a line for each group, method and metric."""
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
    # tables of slices and of lesions share one file: each leaves the other's count empty
    names = ("group", "method", "metric", "n_subjects", "n_slices", "n_lesions", "mean", "std")
    return numbers.as_csv(lines, (*names, "best", *_TEST_KEYS, "low", "high"))


def as_latex(tables: Sequence[Table]) -> str:
    """Return the tables as LaTeX ``tabular`` (package booktabs), with the best values in bold."""
    blocks = []
    for table in tables:
        frame = table.frame(_tex_cell).rename(index=_tex, columns=_tex).reset_index(names="method")
        block = frame.to_latex(index=False, column_format=f"lrr{'r' * len(table.columns)}")
        blocks.append(f"% {one_line(table.title)}\n{block}")
    return "\n".join(blocks)


def _tex(text: str) -> str:
    """Return text with LaTeX's special characters escaped."""
    return "".join(_TEX.get(char, char) for char in one_line(text))


def _tex_cell(cell: Cell) -> str:
    """Return a cell in LaTeX; the best mean is bold."""
    return rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text)
