"""What each arm changes in each scan, beside the fit of the same scan without a prior."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from mrisem.results.rows import Row, read_rows

REFERENCE = "no prior"
SHOWN = {"psnr": 2, "haarpsi": 4}
COUNTED = {"psnr": 1, "haarpsi": 1, "nmse": -1}  # sign of the better side
BETTER = "better in PSNR, HaarPSI, NMSE"
# what a label holds, in this order -> what the arm is; other labels are names of classical methods
_WORDS = (
    ("as trained", "network as trained"),
    ("target=negative", "control: sides exchanged"),
    ("target=random", "control: one random direction"),
    ("alexnet", "alexnet"),
    ("vgg16", "vgg16"),
    ("unrolled + tv", "tv as regulariser"),
    ("unrolled", REFERENCE),
)
_ORDER = [name for _, name in reversed(_WORDS)]


def arm_of(row: Row) -> str:
    """Return what an arm is, of its label; the runs of the heads' bank name a ``data.root`` each.

    >>> arm_of({"method": "unrolled + image_same [encoder=vgg16]", "run": "data.root-a__prior-b"})
    'vgg16, bank of real heads'
    >>> arm_of({"method": "tv", "run": "model-tv"})
    'tv alone'
    """
    method = str(row["method"])
    name = next((name for word, name in _WORDS if word in method), f"{method} alone")
    return f"{name}, bank of real heads" if "data.root-" in str(row["run"]) else name


def analyse(folder: Path) -> list[dict[str, Any]]:
    """Return a row for each arm: for each scan the changes of PSNR and HaarPSI, means of slices.

    The first row has the scores without a prior themselves.
    """
    arms: dict[str, dict[str, list[Row]]] = {}
    for row in read_rows(folder / "runs" / "metrics.csv"):
        arms.setdefault(arm_of(row), {}).setdefault(scan_of(str(row["file"])), []).append(row)
    scans = sorted(arms[REFERENCE])
    table = []
    for arm in sorted(arms, key=lambda name: (_place(name), name)):
        facts: dict[str, Any] = {"arm": arm}
        better = dict.fromkeys(COUNTED, 0)
        for scan in scans:
            if scan not in arms[arm]:
                facts[scan] = None
                continue
            change = {s: _mean(arms[arm][scan], s) for s in COUNTED}
            if arm != REFERENCE:
                change = {s: change[s] - _mean(arms[REFERENCE][scan], s) for s in COUNTED}
            sign = "" if arm == REFERENCE else "+"
            facts[scan] = " ".join(f"{change[s]:{sign}.{digits}f}" for s, digits in SHOWN.items())
            for score, side in COUNTED.items():
                better[score] += side * change[score] > 0
        n = sum(scan in arms[arm] for scan in scans)
        told = ", ".join(map(str, better.values()))
        table.append(facts | {BETTER: None if arm == REFERENCE else f"{told} of {n}"})
    return table


def scan_of(file: str) -> str:
    """Return a scan's name without what its file says beside it.

    >>> scan_of("file_brain_AXT1_colin27_T1-a0090511.h5"), scan_of("knee_1ch_640x332.h5")
    ('colin27_T1', 'measured knee_1ch_640x332')
    """
    image = re.match(r"file_(?:brain|knee)_(?:AX[A-Z0-9]+|CORPDF?S?_FBK)_(.*)-\w{8}\.h5", file)
    return image[1] if image else f"measured {Path(file).stem}"


def _place(arm: str) -> int:
    name = arm.partition(",")[0]
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


def _mean(slices: list[Row], score: str) -> float:
    return float(np.mean([row[score] for row in slices]))


def outcome(own: list[dict[str, Any]]) -> str:
    """Return for each arm with a network in how many scans it is better than no prior."""
    guided = [row for row in own if row["arm"].startswith(("vgg16", "alexnet", "control"))]
    lines = [f"{row['arm']}: {row[BETTER]}" for row in guided]
    return f"Real images and measured scans, {BETTER}: " + "<br>".join(lines)
