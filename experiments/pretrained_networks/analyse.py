"""Mean change against the fit without a prior, by anatomy; one slice a subject."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

REFERENCE = "unrolled"
SCORES = {"psnr": (1, 2), "ssim": (1, 4), "haarpsi": (1, 4), "lpips": (-1, 4)}  # sign of better


def analyse(folder: Path) -> list[dict[str, Any]]:
    """For each anatomy and arm: mean change of each score, and in how many subjects it is better.

    Raises:
        ValueError: when an arm lacks a subject that the reference has.
    """
    with (folder / "runs" / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    table = []
    for anatomy in sorted({row["anatomy"] for row in rows}):
        arms: dict[str, dict[str, dict[str, str]]] = {}
        for row in rows:
            if row["anatomy"] == anatomy:
                arms.setdefault(row["method"], {})[row["file"]] = row
        reference = arms.pop(REFERENCE)
        for arm, scans in arms.items():
            if scans.keys() != reference.keys():
                raise ValueError(f"{arm} must hold the scans {sorted(reference)}; run it again")
            facts: dict[str, Any] = {"anatomy": anatomy, "arm": arm, "subjects": len(scans)}
            for score, (sign, digits) in SCORES.items():
                changes = [float(scans[f][score]) - float(reference[f][score]) for f in scans]
                better = sum(sign * change > 0 for change in changes)
                mean = sum(changes) / len(changes)
                facts[score] = f"{mean:+.{digits}f} ({better})"
            table.append(facts)
    return table


def outcome(own: list[dict[str, Any]]) -> str:
    """One line for the table of claims: VGG16's relu4_3 at balance 1, and random weights."""
    parts = []
    for row in own:
        if "encoder=vgg16" in row["arm"] and "levels=[4]" in row["arm"]:
            parts.append(f"{row['anatomy']}, {row['arm']}: HaarPSI {row['haarpsi']}")
    return "<br>".join(parts)
