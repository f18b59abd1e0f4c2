"""Printing of tables: as wide as the terminal, or as plain text into a pipe or file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

    from mrisem.results.tables import Cell, Table, TableRow

_GAP, _EDGES = 3, 2  # characters between two columns, and at both edges of a table


def show_scores(tables: Sequence[Table]) -> None:
    """Print tables of scores; columns that do not fit the terminal follow in further blocks."""
    from mrisem.results.tables import as_text

    if not sys.stdout.isatty():
        for table in tables:
            print(as_text(table), end="\n\n")
        return
    from rich.console import Console

    console = Console()
    for table in tables:
        for block in _blocks(table, console.width):
            console.print(block)
        for reason in table.reasons:
            console.print(f"no p-value where: {reason}", style="dim", markup=False)
        console.print()


def show_pairs(rows: Sequence[tuple[str, str]], plain: Sequence[str]) -> None:
    """Print short titles, each with a wrapped text beside it.

    Args:
        rows: titles and texts.
        plain: lines that are printed if the output is no terminal.
    """
    if not sys.stdout.isatty():
        print("\n".join(plain))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(min_width=11)
    grid.add_column(overflow="fold", ratio=1)
    for title, text in rows:
        grid.add_row(Text(title, "dim"), Text(text, "red" if text.startswith("MISSING") else ""))
    Console().print(grid)


def _blocks(table: Table, width: int) -> Iterator[RichTable]:
    """Yield tables of rich, each with the methods and as many columns as fit."""
    first = max(len(line) for row in table.rows for line in _method_lines(row)) + _GAP
    counts = len("subjects") + len(table.counted) + 2 * _GAP
    width -= _EDGES
    start, room, is_first = 0, width - first - counts, True
    for index in range(len(table.columns)):
        need = _column_width(table, index)
        # a column that is wider than the terminal still gets a block
        if need > room and (index > start or is_first):
            yield _block(table, range(start, index), is_first)
            start, room, is_first = index, width - first, False
        room -= need
    yield _block(table, range(start, len(table.columns)), is_first)


def _column_width(table: Table, index: int) -> int:
    """Return the width of a column with its gap, in characters."""
    from mrisem.results.inside import one_line

    cells = [len(line) for row in table.rows for line in _lines(row.cells[index])]
    return max([len(one_line(table.columns[index].heading)), *cells]) + _GAP


def _block(table: Table, indices: range, is_first: bool) -> RichTable:
    """Return a table of rich with some columns; the first block has title and counts as well."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    from mrisem.results.inside import one_line

    title = Text(one_line(table.title)) if is_first else None
    block = RichTable(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    block.add_column("method", overflow="fold")
    for name in ("subjects", table.counted) if is_first else ():
        block.add_column(name, justify="right")
    for index in indices:
        block.add_column(Text(one_line(table.columns[index].heading)), justify="right")
    for row in table.rows:
        name, *against = _method_lines(row)
        method = Text(name)
        # the reference stands beside the p-values, and is left out if this block has none
        if against and any(len(_lines(row.cells[i])) > 1 for i in indices):
            method.append(f"\n{against[0]}", "dim")
        counts = [str(row.n_subjects), str(row.n)] if is_first else []
        block.add_row(method, *counts, *(_cell(row.cells[index]) for index in indices))
    return block


def _cell(cell: Cell) -> Text:
    """Return a number, in bold if it is the best, with the p-value of its test below."""
    from rich.text import Text

    first, *more = _lines(cell)
    text = Text(first, "bold green" if cell.best else "")
    for line in more:
        text.append(f"\n{line}", "dim")
    return text


def _method_lines(row: TableRow) -> list[str]:
    """Return the lines of a method: its label, and the reference of its tests."""
    from mrisem.results.inside import one_line

    against = [] if row.reference is None else [f"  against {one_line(row.reference)}"]
    return [one_line(row.method), *against]


def _lines(cell: Cell) -> list[str]:
    """Return the lines of a cell: its number, and the p-value of its test."""
    from mrisem.results.tables import p_text

    p = cell.test.get("p_holm")
    return [cell.text, *([] if p is None else [p_text(p)])]
