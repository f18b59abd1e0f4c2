"""How far a command is: bars in a terminal; in a pipe or a log file a line once a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
LINE_EVERY = 60.0  # seconds between two lines where there is no terminal
_DRAW_EVERY = 0.1  # seconds between two updates of a bar
_SETTLED = 1.0  # seconds before which the time left is a guess


class Bar:
    """Progress of one loop.

    Args:
        title: what is done.
        total: number of its steps; None: not known.
        unit: what is counted, in the plural.
        done: steps that were done before.

    Attributes:
        ahead: steps that the present one counts for, so that the time left sees the bars inside.
    """

    def __init__(self, title: str, total: int | None, unit: str = "", done: int = 0) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._before = done
        self.ahead = 1
        self._began = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Count steps."""
        self.done += steps
        _DISPLAY.show(self)

    def close(self) -> None:
        """Take the bar away."""
        _DISPLAY.close(self)

    def rename(self, title: str) -> None:
        """Say what is done now."""
        self.title = title
        _DISPLAY.show(self)

    def share(self) -> float:
        """Share of the steps that is done, with those of the bar inside; 0 where not known."""
        if not self.total:
            return 0.0
        return min(1.0, (self.done + self.ahead * _DISPLAY.share_inside(self)) / self.total)

    def count(self) -> str:
        """Steps done, of how many."""
        of = "" if self.total is None else f" of {self.total}"
        return f"{self.done}{of} {self.unit}".strip()

    def left(self) -> str:
        """Time that is left at the pace so far, in the end the time taken; empty at first."""
        share, before = self.share(), self._before / (self.total or 1)
        seconds = time.monotonic() - self._began
        if share <= before or seconds < _SETTLED:
            return ""
        if share >= 1:
            return duration(seconds)
        return f"{duration(seconds * (1 - share) / (share - before))} left"


class _Display:
    """The bars that are open in this process, outermost first."""

    def __init__(self) -> None:
        self.bars: list[Bar] = []
        self.silent = False
        self._tasks: dict[Bar, int] = {}
        self._terminal: Progress | None = None
        self._shown = 0.0

    def open(self, bar: Bar) -> None:
        """Add a bar inside the others."""
        if not self.bars:
            self._shown = time.monotonic()
            if not self.silent and sys.stderr.isatty():
                self._terminal = _terminal()
                self._terminal.start()
        self.bars.append(bar)
        if self._terminal is not None:
            task = self._terminal.add_task(bar.title, total=bar.total, completed=bar.done, bar=bar)
            self._tasks[bar] = task

    def close(self, bar: Bar) -> None:
        """Remove a bar; the outermost one stays on the screen as it is."""
        if bar not in self.bars:
            return
        self.bars.remove(bar)
        task = self._tasks.pop(bar, None)
        if self._terminal is None or task is None:
            return
        if self.bars:
            self._terminal.remove_task(task)  # type: ignore[arg-type]
        else:
            self._draw(bar, task)
            self._terminal.stop()
            self._terminal = None

    def show(self, bar: Bar) -> None:
        """Show how far a bar is, unless that was done a moment ago."""
        now = time.monotonic()
        wait = LINE_EVERY if self._terminal is None else _DRAW_EVERY
        if self.silent or bar not in self.bars or now - self._shown < wait:
            return
        self._shown = now
        if self._terminal is None:
            parts = [" ".join(filter(None, (b.title, b.count(), b.left()))) for b in self.bars]
            sys.stderr.write(f"mrisem: {'; '.join(parts)}\n")
            sys.stderr.flush()
            return
        for other, task in self._tasks.items():
            self._draw(other, task)

    def _draw(self, bar: Bar, task: int) -> None:
        if self._terminal is not None:
            done = bar.share() * bar.total if bar.total else bar.done
            self._terminal.update(task, description=bar.title, completed=done)  # type: ignore[arg-type]

    def share_inside(self, bar: Bar) -> float:
        """Share that is done of the bar inside another."""
        inside = self.bars[self.bars.index(bar) + 1 :] if bar in self.bars else []
        return inside[0].share() if inside else 0.0


def _terminal() -> Progress:
    """Bars as wide as the terminal, on stderr; what is printed meanwhile stands above them."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Facts(ProgressColumn):
        """Count and time left."""

        def render(self, task: object) -> Text:
            bar = task.fields["bar"]  # type: ignore[attr-defined]
            return Text("  ".join(filter(None, (bar.count(), bar.left()))))

    title = TextColumn(
        "{task.description}",
        markup=False,  # names of files may hold brackets
        table_column=Column(ratio=2, no_wrap=True, overflow="ellipsis"),
    )
    bar = BarColumn(bar_width=None, table_column=Column(ratio=1))
    facts = Facts(table_column=Column(no_wrap=True, justify="right", min_width=24))
    return Progress(
        *(title, bar, facts),
        console=Console(stderr=True),
        expand=True,
        refresh_per_second=4,
        redirect_stdout=sys.stdout.isatty(),
    )


_DISPLAY = _Display()


@contextmanager
def progress(title: str, total: int | None = None, unit: str = "", done: int = 0) -> Iterator[Bar]:
    """Show a bar while the block runs; bars inside a bar stand below it."""
    bar = Bar(title, total, unit, done)
    _DISPLAY.open(bar)
    try:
        yield bar
    finally:
        _DISPLAY.close(bar)


def track(items: Iterable[T], title: str, unit: str = "") -> Iterator[T]:
    """Yield items and show how many have been worked on."""
    total = len(items) if isinstance(items, Sized) else None
    if total == 0:
        return
    with progress(title, total, unit) as bar:
        for item in items:
            yield item
            bar.advance()


def close_all() -> None:
    """Close all bars: an error has left them open."""
    for bar in _DISPLAY.bars[::-1]:
        _DISPLAY.close(bar)


def silence() -> None:
    """Show nothing in this process: another one of its run does."""
    _DISPLAY.silent = True


def duration(seconds: float) -> str:
    """Return a duration in two units at most.

    >>> duration(42), duration(150), duration(7300), duration(200000)
    ('42 s', '2:30 min', '2:01 h', '2 d 7 h')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02d} min"
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02d} h" if hours < 24 else f"{hours // 24} d {hours % 24} h"
