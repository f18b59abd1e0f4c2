"""Each arm against the network without an encoder, for each anatomy and acceleration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

REFERENCE = "unrolled as trained"
SHOWN = {"psnr": 2, "ssim": 4, "haarpsi": 4, "nmse": 5, "lpips": 4}
CLAIMED = ("psnr", "haarpsi")


def analyse(folder: Path) -> list[dict[str, Any]]:
    """Return the changes against `REFERENCE`, means over subjects, for each group and arm.

    The tests are those of `mrisem evaluate`: corrected over the arms of a group (Holm).
    """
    summary = json.loads((folder / "runs" / "summary.json").read_text(encoding="utf-8"))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for group in summary["groups"]:
        title = f"{group['anatomy']}, {group['mask']}"
        for test in group["paired_tests"]:
            if test["reference"] == REFERENCE and test["metric"] in SHOWN:
                facts = {"scans": title, "arm": test["method"], "subjects": test["n_subjects"]}
                row = rows.setdefault((title, test["method"]), facts)
                row[test["metric"]] = change(test)
    return list(rows.values())


def change(test: dict[str, Any]) -> str:
    """Return a mean change with its p-value, or why there is none.

    >>> change({"metric": "psnr", "mean_difference": 0.123, "p_holm": 0.0049})
    '+0.12 p = 0.0049'
    """
    if test["mean_difference"] is None:
        return "-"
    text = f"{test['mean_difference']:+.{SHOWN[test['metric']]}f}"
    p, reason = test["p_holm"], test.get("reason")
    return f"{text} {reason}" if p is None else f"{text} p = {p:.2g}"


def outcome(own: list[dict[str, Any]]) -> str:
    """Return the changes of the arms with an encoder inside: `CLAIMED` scores of each group."""
    arms: dict[str, list[str]] = {}
    for row in own:
        if row["arm"].startswith("unrolled_"):
            said = ", ".join(row[score] for score in CLAIMED)
            arms.setdefault(row["arm"], []).append(f"{row['scans']}: {said}")
    lines = [f"{arm}: {'; '.join(said)}" for arm, said in arms.items()]
    return f"PSNR [dB] and HaarPSI against {REFERENCE}, by subject. " + "<br>".join(lines)
