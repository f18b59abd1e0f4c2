"""What all rows share: turns, seconds of wall and CPU, peak memory, processes of their own."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

T = TypeVar("T")
# Imported once by the server that children are forked from.
_SHARED = ["mrisem.tasks.network", "mrisem.tasks.inr", "transformers.models.janus.modeling_janus"]


class Spent(NamedTuple):
    """Seconds; cpu is user and system time of all threads and finished child processes."""

    wall: float
    cpu: float

    def __add__(self, other: tuple) -> Spent:
        return Spent(*(a + b for a, b in zip(self, other, strict=True)))

    def __sub__(self, other: Spent) -> Spent:
        return Spent(*(a - b for a, b in zip(self, other, strict=True)))

    def __mul__(self, factor: float) -> Spent:
        return Spent(*(factor * a for a in self))


@dataclass(frozen=True)
class Setting:
    """How the rows are measured.

    Args:
        quick: the smallest sizes and one turn: shows that all of it runs, and nothing else.
        turns: how often each of the things that are compared takes its turn; its least counts.
        peers_python: interpreter of the peers' packages.
        scan: file in fastMRI's format that peers are compared on; None: simulated.
    """

    quick: bool = False
    turns: int = 5
    peers_python: str = sys.executable
    scan: str | None = None

    def size(self, full: T, quick: T) -> T:
        """Choose between two sizes."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Row:
    """One row of the table: a thing against a named alternative, measured in the same run.

    Args:
        name: what it is.
        against: the alternative; the ratio is its cost over ours.
        ours: seconds, or a number in ``unit``.
        theirs: the same of the alternative; None: it is not installed.
        difference: relative difference of the two results; None: there is none to state.
        note: what else belongs to it.
        asked: least ratio that the project asks of itself.
        unit: of plain numbers.
    """

    name: str
    against: str
    ours: Spent | float | None
    theirs: Spent | float | None
    difference: float | None = None
    note: str = ""
    asked: float | None = None
    unit: str = "s"

    @property
    def ratios(self) -> list[float]:
        """The alternative over ours: of wall and CPU seconds, or of the plain numbers."""
        if self.ours is None or self.theirs is None:
            return []
        theirs, ours = (v if isinstance(v, Spent) else (v,) for v in (self.theirs, self.ours))
        return [a / max(b, 1e-9) for a, b in zip(theirs, ours, strict=True)]


def now() -> Spent:
    """Clocks of wall and CPU."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = time.process_time() + children.ru_utime + children.ru_stime
    return Spent(time.perf_counter(), cpu)


def timed(function: Callable[[], T], share: float = 1) -> Callable[[], tuple[Spent, T]]:
    """Make a function tell what it spent beside what it gives; a share of it, such as a slice's."""

    def run() -> tuple[Spent, T]:
        start = now()
        result = function()
        return (now() - start) * share, result

    return run


def alternate(
    turns: int, calls: Mapping[str, Callable[[], tuple[Spent, Any]]]
) -> tuple[dict[str, Spent], dict[str, Any]]:
    """Let calls take turns; return the least that each spent (wall, CPU), and its last result."""
    spent: dict[str, list[Spent]] = {name: [] for name in calls}
    results = {}
    for _ in range(turns):
        for name, call in calls.items():
            seconds, results[name] = call()
            spent[name].append(seconds)
    least = {name: Spent(*map(min, zip(*each, strict=True))) for name, each in spent.items()}
    return least, results


def apart(result: Tensor, reference: Tensor) -> float:
    """Relative difference ``|a - b| / |b|``."""
    return float((result - reference).norm() / reference.norm())


def in_child(function: Callable[..., T], *arguments: Any) -> T:
    """Run a function in a process of its own, whose memory is its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_SHARED)
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()


def peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # rusage would count what the parent held when this process was forked
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
