"""Do opposite targets of a prompt steer opposite ways?"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

from mrisem.results.rows import Column, group_rows, read_rows
from mrisem.results.runs import Run, find_runs
from mrisem.results.summary import paired_tests

SCORES = [Column(name, name, "higher", 4) for name in ("tenengrad", "psnr", "haarpsi")]
TARGETS = ("positive", "negative")
SHOWN = ("n_subjects", "mean_difference", "p_holm", "share_better", "reason")


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
    """For each group and prompt: answers under both targets; scores, positive minus negative.

    p-values of a score are corrected over the prompts of a group.
    """
    runs = [run for run in find_runs([folder / "runs"]) if run.has_prior]
    root = (folder / "runs").resolve()
    prompts = sorted({str(run.settings.get("prompt.name")) for run in runs})
    against = {f"{prompt} positive": f"{prompt} negative" for prompt in prompts}
    results = []
    for (anatomy, mask), rows in group_rows(read_rows(folder / "runs" / "metrics.csv")).items():
        label_of_run: dict[str, str] = {}
        runs_of_label: dict[str, list[Run]] = defaultdict(list)
        for run in runs:
            if (run.anatomy, run.mask) == (anatomy, mask):
                label = f"{run.settings.get('prompt.name')} {run.settings.get('prompt.target')}"
                label_of_run[run.folder.relative_to(root).as_posix()] = label
                runs_of_label[label].append(run)
        steered = [
            row | {"method": label_of_run[row["run"]]} for row in rows if row["run"] in label_of_run
        ]
        tests = paired_tests(steered, SCORES, against)
        for prompt in prompts:
            result: dict[str, Any] = {"anatomy": anatomy, "mask": mask, "prompt": prompt}
            for target in TARGETS:
                result[target] = answers(runs_of_label[f"{prompt} {target}"])
            for test in tests:
                if test["method"] == f"{prompt} positive":
                    result[test["metric"]] = {key: test[key] for key in SHOWN if key in test}
            results.append(result)
    return results


def outcome(own: list[dict[str, Any]]) -> str:
    """One line for the table of claims."""
    lines = []
    for row in own:
        test = row["tenengrad"]
        p = test["reason"] if test["p_holm"] is None else f"p = {test['p_holm']:.2g}"
        wanted = ", ".join(
            f"{target} {row[target]['wanted at the start']} -> {row[target]['wanted at the end']}"
            for target in TARGETS
        )
        lines.append(
            f"{row['anatomy']}, {row['mask']}, {row['prompt']}: Tenengrad of positive minus "
            f"negative target {test['mean_difference']:+.4f} ({p}, {test['n_subjects']} subjects); "
            f"wanted answers {wanted}"
        )
    return "<br>".join(lines)
