"""What each arm changes in each scan, beside the fit of the same scan without a prior."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mrisem.results.rows import Row, read_rows

REFERENCE = "unrolled"
SHOWN = {"psnr": 2, "haarpsi": 4, "nmse": 5, "lpips": 4}


def analyse(folder: Path) -> list[dict[str, Any]]:
    """Mean over a scan's slices of each score without a prior, and each arm's mean change of it."""
    rows = read_rows(folder / "runs" / "metrics.csv")
    scans: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        scans.setdefault((str(row["file"]), str(row["method"])), []).append(row)
    table = []
    for (file, method), slices in sorted(scans.items()):
        mean = {score: _mean(slices, score) for score in SHOWN}
        facts: dict[str, Any] = {"scan": Path(file).stem, "arm": method, "slices": len(slices)}
        if method != REFERENCE:
            without = scans[file, REFERENCE]
            mean = {score: mean[score] - _mean(without, score) for score in SHOWN}
        sign = "" if method == REFERENCE else "+"
        table.append(facts | {s: f"{mean[s]:{sign}.{digits}f}" for s, digits in SHOWN.items()})
    return table


def _mean(slices: list[Row], score: str) -> float:
    return float(np.mean([row[score] for row in slices]))


def outcome(own: list[dict[str, Any]]) -> str:
    """Return for each arm with a prior in how many scans PSNR, HaarPSI and NMSE are better."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for row in own:
        if "image" in row["arm"]:
            arms.setdefault(row["arm"], []).append(row)
    lines = []
    for arm, rows in sorted(arms.items()):
        better = {s: sum(float(r[s]) * (-1 if s == "nmse" else 1) > 0 for r in rows) for s in SHOWN}
        told = f"PSNR {better['psnr']}, HaarPSI {better['haarpsi']}, NMSE {better['nmse']}"
        lines.append(f"{arm}: {told} of {len(rows)}")
    return "Scans that the prior makes better, of real images and measured: " + "<br>".join(lines)
