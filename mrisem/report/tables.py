"""Methods by numbers as a table: cells with marks, aligned text, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mrisem.report.summary import Column

DASH = "\N{EN DASH}"
_TEST_KEYS = ("reference", "mean_difference", "p_value", "share_better", "p_holm")


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    Args:
        mean: over slices; None when there is none.
        std: sample standard deviation; None for fewer than two slices.
        text: as shown.
        best: whether it is the column's best mean (among two methods or more).
        test: the paired test against the method's reference, or None.
        low: lower end of the mean's 95 % interval; None for too few files.
        high: its upper end.
        interval: both as shown; or an empty string.
    """

    mean: float | None
    std: float | None
    text: str
    best: bool
    test: dict[str, Any] | None
    low: float | None
    high: float | None
    interval: str


@dataclass(frozen=True)
class TableRow:
    """One method of the table; cells in the order of the columns."""

    method: str
    n: int
    reference: str | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Methods by numbers, of slices that may be compared.

    Args:
        title: anatomy and sampling, after what it tells when that is not the scores.
        columns: those with at least one number.
        rows: one a method.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]

    @property
    def reasons(self) -> list[str]:
        """Why some of its tests have no p-value."""
        tests = [cell.test for row in self.rows for cell in row.cells if cell.test]
        return sorted({test["reason"] for test in tests if test.get("reason")})


def build_table(group: dict[str, Any], columns: Sequence[Column]) -> Table:
    """Make the table of one entry of a summary's ``groups``."""
    methods, tests = group["methods"], group["paired_tests"]
    filled = tuple(c for c in columns if any(m[c.name]["n"] for m in methods.values()))
    best = {column.name: _best(methods, column) for column in filled}
    rows = []
    for label, summary in methods.items():
        own = {test["metric"]: test for test in tests if test["method"] == label}
        cells = tuple(
            Cell(
                mean=summary[c.name]["mean"],
                std=summary[c.name]["std"],
                text=mean_text(summary[c.name], c.digits),
                best=label in best[c.name],
                test=own.get(c.name),
                low=summary[c.name]["low"],
                high=summary[c.name]["high"],
                interval=interval_text(summary[c.name], c.digits),
            )
            for c in filled
        )
        reference = next(iter(own.values()))["reference"] if own else None
        n = max((summary[c.name]["n"] for c in filled), default=0)
        rows.append(TableRow(label, n, reference, cells))
    title = ", ".join(filter(None, (group["anatomy"], group["mask"])))
    return Table(title or "all slices", filled, tuple(rows))


def _best(methods: dict[str, Any], column: Column) -> set[str]:
    means = {m: s[column.name]["mean"] for m, s in methods.items()}
    shown = {m: round(mean, column.digits) for m, mean in means.items() if mean is not None}
    if column.better is None or len(shown) < 2 or len(set(shown.values())) == 1:
        return set()
    pick = max if column.better == "higher" else min
    return {method for method, mean in shown.items() if mean == pick(shown.values())}


def mean_text(summary: dict[str, Any], digits: int) -> str:
    """Return ``mean ± std``, or a dash.

    >>> mean_text({"mean": 31.257, "std": 2.0, "n": 3}, 2)
    '31.26 ± 2.00'
    """
    if summary["mean"] is None:
        return DASH
    spread = "" if summary["std"] is None else f" ± {summary['std']:.{digits}f}"
    return f"{summary['mean']:.{digits}f}{spread}"


def interval_text(summary: dict[str, Any], digits: int) -> str:
    """Return ``[low, high]``, or an empty string.

    >>> interval_text({"low": 30.104, "high": 32.5}, 2), interval_text({"low": None}, 2)
    ('[30.10, 32.50]', '')
    """
    if summary["low"] is None:
        return ""
    return f"[{summary['low']:.{digits}f}, {summary['high']:.{digits}f}]"


def p_text(p: float | None) -> str:
    """Return a p-value as shown, or an empty string.

    >>> p_text(0.00001), p_text(0.0321), p_text(None)
    ('p < 0.001', 'p = 0.032', '')
    """
    if p is None:
        return ""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def as_text(table: Table) -> str:
    """Return the table as aligned plain text, the best values starred."""
    head, *lines = as_lines(table)
    for line, row in zip(lines, table.rows, strict=True):
        marks = (" *" if cell.best else "  " for cell in row.cells)
        line[2:] = [text + mark for text, mark in zip(line[2:], marks, strict=True)]
    return f"{table.title}\n{aligned([head, *lines])}"


def as_lines(table: Table) -> list[list[str]]:
    """Return the headings and the cells as shown."""
    head = ["method", "n", *(column.heading for column in table.columns)]
    return [head, *([r.method, str(r.n), *(cell.text for cell in r.cells)] for r in table.rows)]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return cells in columns, the first to the left, the others to the right.

    >>> print(aligned([["method", "n"], ["tv", "10"]]))
    method   n
    tv      10
    """
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(pairs)).rstrip()
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    return "\n".join(text)


def as_csv(tables: Sequence[Table]) -> str:
    """Return all tables in long form: one line a group, method and metric."""
    head = ["group", "method", "metric", "n", "mean", "std", "best", *_TEST_KEYS, "low", "high"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for table in tables:
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                test = cell.test or {}
                known = [table.title, row.method, column.name, row.n, cell.mean, cell.std]
                tested = (test.get(key) for key in _TEST_KEYS)
                writer.writerow([*known, int(cell.best), *tested, cell.low, cell.high])
    return out.getvalue()


_TEX = {char: rf"\{char}" for char in "_%&#${}"}
_TEX |= {"±": r"$\pm$", DASH: "--", "↑": r"$\uparrow$", "↓": r"$\downarrow$"}


def _tex(text: str) -> str:
    return "".join(_TEX.get(char, char) for char in text)


def as_latex(tables: Sequence[Table]) -> str:
    """Return the tables as LaTeX ``tabular`` environments, the best values bold."""
    blocks = []
    for table in tables:
        head = ["Method", "$n$", *(_tex(c.heading) for c in table.columns)]
        lines = [
            f"% {table.title}",
            rf"\begin{{tabular}}{{lr{'r' * len(table.columns)}}}",
            r"\hline",
            " & ".join(head) + r" \\",
            r"\hline",
        ]
        for row in table.rows:
            cells = [
                rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text)
                for cell in row.cells
            ]
            lines.append(" & ".join([_tex(row.method), str(row.n), *cells]) + r" \\")
        blocks.append("\n".join([*lines, r"\hline", r"\end{tabular}"]))
    return "\n\n".join(blocks) + "\n"
