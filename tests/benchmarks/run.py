"""Time mrisem against named alternatives, and write one table: `make bench`.

python tests/benchmarks/run.py [--only NAME ...] [--quick] [--peers-python PYTHON] [--scan FILE]

Each group of rows runs in a process of its own, things that are compared in turns. What was
measured is kept as OUTPUT/bench.json and bench.md after each group; a group that fails is named at
the end, exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from measure import Row, Setting, Spent, in_child

from mrisem.verbs.memory import keep_freed_memory

HERE = Path(__file__).parent
# Group -> module and generator of its rows; a new row is one more here.
GROUPS = {
    "solve": ("solves", "solve_rows"),
    "starts": ("solves", "start_rows"),
    "stacked": ("fits", "stacked_rows"),
    "route": ("priors", "route_rows"),
    "bank": ("priors", "memory_rows"),
    "guided": ("steps", "guided_rows"),
    "growth": ("growth", "growth_rows"),
    "peers": ("peers", "peer_rows"),
    "espirit": ("peers", "espirit_rows"),
}
APART = {"bank", "growth"}  # start processes themselves, one for each size
HEADER = ["what", "against", "ours", "theirs", "ratio", "CPU ratio", "asked", "difference", "note"]


def facts(threads: int) -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    import torch

    cpu = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpu.read_text()) if cpu.exists() else []
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=7"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit or "unknown",
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def measured(group: str, setting: Setting) -> list[Row]:
    """Measure one group of rows, with memory as the verbs have it."""
    keep_freed_memory()
    module, name = GROUPS[group]
    rows: Callable[[Setting], Iterator[Row]] = getattr(import_module(module), name)
    return list(rows(setting))


def cells(row: Row) -> list[str]:
    """Return a row as text.

    >>> cells(Row("a", "b", Spent(1, 2), Spent(3, 3), 1e-7, asked=2))[2:8]
    ['1.00 s', '3.00 s', '3.00', '1.50', '2, reached', '1.0e-07']
    """
    ratios = [f"{ratio:.2f}" for ratio in row.ratios]
    asked = ""
    if row.asked is not None and row.ratios:
        reached = "reached" if row.ratios[0] >= row.asked else "missed"
        asked = f"{row.asked:.2g}, {reached}"
    theirs = "not installed" if row.theirs is None else _amount(row.theirs, row.unit)
    difference = "" if row.difference is None else f"{row.difference:.1e}"
    ours = "" if row.ours is None else _amount(row.ours, row.unit)
    ratios += [""] * (2 - len(ratios))
    return [row.name, row.against, ours, theirs, *ratios, asked, difference, row.note]


def _amount(value: Spent | float, unit: str) -> str:
    number = value.wall if isinstance(value, Spent) else value
    return f"{number:.3g} {unit}".strip() if number < 0.1 else f"{number:.2f} {unit}".strip()


def table(about: dict[str, Any], rows: list[Row]) -> str:
    """Return the table in Markdown, behind a line about the machine."""
    line = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in about.items())
    body = [HEADER, ["---"] * len(HEADER), *map(cells, rows)]
    return "\n".join([line, "", *("| " + " | ".join(c) + " |" for c in body)]) + "\n"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="NAME",
                        help=f"groups of rows, of {', '.join(GROUPS)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="smallest sizes, for a test")
    parser.add_argument("--turns", type=int, help="turns of each thing (default 5, quick 1)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peers-python", default=sys.executable, metavar="PYTHON",
                        help="interpreter that has mrpro, deepinv or sigpy")  # fmt: skip
    parser.add_argument("--scan", help="fastMRI file that peers are compared on (simulated)")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench"))
    parser.add_argument("--readme", action="store_true",
                        help="also put the table into tests/benchmarks/README.md")  # fmt: skip
    return parser.parse_args()


def keep(output: Path, about: dict[str, Any], rows: dict[str, list[Row]]) -> None:
    """Write what was measured so far."""
    output.mkdir(parents=True, exist_ok=True)
    listed = [
        {"group": g, "ratios": r.ratios, **asdict(r)} for g, each in rows.items() for r in each
    ]
    (output / "bench.json").write_text(json.dumps({"facts": about, "rows": listed}, indent=1))
    (output / "bench.md").write_text(table(about, [row for each in rows.values() for row in each]))


def renew(page: Path, text: str) -> None:
    """Replace the table of a page."""
    marked = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- /table -->)", re.DOTALL)
    page.write_text(marked.sub(lambda _: text, page.read_text()))


def main() -> int:
    """Measure, print and keep."""
    options = arguments()
    # before torch is imported: here, in the groups' processes, and in peers'
    os.environ |= {"OMP_NUM_THREADS": str(options.threads), "TQDM_DISABLE": "1"}
    turns = options.turns or (1 if options.quick else 5)
    setting = Setting(options.quick, turns, options.peers_python, options.scan)
    about, rows, failed = facts(options.threads), {}, []
    for group in options.only:
        print(f"== {group}", flush=True)
        run = measured if group in APART else partial(in_child, measured)
        try:
            rows[group] = run(group, setting)
        except Exception:
            traceback.print_exc()
            failed.append(group)
            continue
        for row in rows[group]:
            print("  " + " | ".join(filter(None, cells(row))), flush=True)
        keep(options.output, about, rows)
    if options.readme:
        renew(HERE / "README.md", table(about, [row for each in rows.values() for row in each]))
    print(f"== {options.output / 'bench.md'}" + "".join(f"; failed: {name}" for name in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
