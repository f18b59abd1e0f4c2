"""Do opposite targets of a prompt steer opposite ways?"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from mrisem.metrics.statistics import paired_test
from mrisem.results.rows import read_rows
from mrisem.results.runs import Run, find_runs

SCORES = {"tenengrad": "higher", "psnr": "higher", "haarpsi": "higher"}


def answers(runs: list[Run]) -> dict[str, int]:
    """On how many slices the model gave the wanted answer at the start and at the end."""
    said: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for run in runs:
        with (run.folder / "fit.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                if row["name"] == "says_wanted":
                    key = (row["file"], row["slice"])
                    entry = (int(row["iteration"]), float(row["value"]))
                    said.setdefault(key, []).append(entry)
    ends = [(min(entries)[1], max(entries)[1]) for entries in said.values()]
    return {
        "slices": len(ends),
        "wanted at the start": int(sum(first for first, _ in ends)),
        "wanted at the end": int(sum(last for _, last in ends)),
    }


def analyse(folder: Path) -> list[dict[str, Any]]:
    """For each prompt: answers under both targets; scores, positive target minus negative."""
    runs = [run for run in find_runs([folder / "runs"]) if run.has_prior]
    rows = read_rows(folder / "runs" / "metrics.csv")
    root = (folder / "runs").resolve()
    results = []
    for prompt in sorted({str(run.settings.get("prompt.name")) for run in runs}):
        result: dict[str, Any] = {"prompt": prompt}
        found: dict[str, dict[tuple[str, int], Any]] = {}
        for target in ("positive", "negative"):
            wanted = {"prompt.name": prompt, "prompt.target": target}
            mine = [r for r in runs if all(r.settings.get(k) == v for k, v in wanted.items())]
            names = {run.folder.relative_to(root).as_posix() for run in mine}
            found[target] = {(r["file"], r["slice"]): r for r in rows if r["run"] in names}
            result[target] = answers(mine)
        shared = sorted(found["positive"].keys() & found["negative"].keys())
        for score, better in SCORES.items():
            sides = [[found[target][key][score] for key in shared] for target in found]
            result[score] = paired_test(*sides, better).as_row()
        results.append(result)
    return results


def outcome(own: list[dict[str, Any]]) -> str:
    """One line for the table of claims."""
    lines = []
    for row in own:
        test = row["tenengrad"]
        p = "no test" if test["p_value"] is None else f"p = {test['p_value']:.2g}"
        wanted = ", ".join(
            f"{target} {row[target]['wanted at the start']} -> {row[target]['wanted at the end']}"
            for target in ("positive", "negative")
        )
        lines.append(
            f"{row['prompt']}: Tenengrad of positive minus negative target "
            f"{test['mean_difference']:+.4f} ({p}, n = {test['n']}); wanted answers {wanted}"
        )
    return "<br>".join(lines)
