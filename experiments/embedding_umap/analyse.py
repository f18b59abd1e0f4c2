"""Do reconstructions move towards the positives, by the margin that the loss compares?

Each level guides once, and is only watched once (`prior.weight=0`), the control.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from mrisem.metrics.statistics import paired_test
from mrisem.results.runs import Run, find_runs


def margin(loss: float) -> float:
    """Return what InfoNCE compares, of its value: positive on the positives' side.

    ``L = log(1 + exp(-m))``, so ``m = -log(exp(L) - 1)`` with ``m = logsumexp(s_pos / tau) -
    logsumexp(s_neg / tau)`` (docs/method.md).

    >>> round(margin(math.log(2)), 12) == 0, margin(0.1) > 0 > margin(3.0)
    (True, True)
    """
    return -math.log(math.expm1(loss)) if loss < 30 else -loss


def margins(run: Run) -> dict[str, dict[str, tuple[float, float]]]:
    """Return level -> file -> margin at the start and at the end of the fit, mean over slices."""
    curves: dict[str, dict[tuple[str, str], list[tuple[int, float]]]] = {}
    with (run.folder / "fit.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            name = row["name"]
            if name.startswith("semantic_"):
                scan = (row["file"], row["slice"])
                point = (int(row["iteration"]), margin(float(row["value"])))
                curves.setdefault(name[9:], {}).setdefault(scan, []).append(point)
    ends: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for level, scans in curves.items():
        for (file, _), points in scans.items():
            pair = (min(points)[1], max(points)[1])
            ends.setdefault(level, {}).setdefault(file, []).append(pair)
    return {
        level: {file: tuple(np.mean(pairs, 0)) for file, pairs in files.items()}
        for level, files in ends.items()
    }


def analyse(folder: Path) -> list[dict[str, Any]]:
    """For each anatomy and level: how the margin changed, guided and only watched."""
    runs = [run for run in find_runs([folder / "runs"]) if run.has_prior]
    moved: dict[tuple[str, str], dict[bool, dict[str, tuple[float, float]]]] = {}
    for run in runs:
        guided = float(run.record.settings["prior"]["weight"] or 0) > 0
        for level, files in margins(run).items():
            moved.setdefault((run.anatomy, level), {}).setdefault(guided, {}).update(files)
    table = []
    for (anatomy, level), arms in sorted(moved.items()):
        facts: dict[str, Any] = {"anatomy": anatomy, "level": level}
        for guided, name in ((True, "guided"), (False, "watched")):
            changes = {file: end - start for file, (start, end) in arms[guided].items()}
            facts["subjects"] = len(changes)
            facts[f"{name}: moved towards positives"] = sum(c > 0 for c in changes.values())
            facts[f"{name}: nearer to positives at the end"] = sum(
                end > 0 for _, end in arms[guided].values()
            )
            facts[f"{name}: mean change"] = float(np.mean([*changes.values()]))
        files = sorted(arms[True].keys() & arms[False].keys())
        ends = [[arms[guided][file][1] for file in files] for guided in (True, False)]
        test = paired_test(ends[0], ends[1], files, "higher")
        facts["p, guided against watched"] = test.p_value or test.reason
        table.append(facts)
    return table


def outcome(own: list[dict[str, Any]]) -> str:
    """Return one line a level for the table of claims."""
    return "<br>".join(
        f"{row['anatomy']}, level {row['level']}: {row['guided: moved towards positives']} of "
        f"{row['subjects']} moved towards the positives by the loss's margin (the same fit "
        f"unguided: {row['watched: moved towards positives']})"
        for row in own
    )
