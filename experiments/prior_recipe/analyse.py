"""Each recipe against the shipped one, and how many scans each harms, as `prior_worth` counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from run import own_module

from mrisem.metrics.statistics import paired_test
from mrisem.results.rows import Row, read_rows

SHIPPED = "unrolled + image_same [encoder.path=janus_mini]"
SCORES = {"psnr": "PSNR [dB]", "haarpsi": "HaarPSI"}  # higher is better


def analyse(folder: Path) -> list[dict[str, Any]]:
    """For each recipe: harmed scans, and mean change and p against the shipped checkpoint."""
    found: dict[str, dict[tuple[str, int], Row]] = {}
    for row in read_rows(folder / "runs" / "metrics.csv"):
        found.setdefault(row["method"], {})[row["file"], row["slice"]] = row
    shipped, table = found[SHIPPED], own_module("prior_worth", "analyse").analyse(folder)
    for facts in table:
        if facts["method"] == SHIPPED:
            continue
        for score, label in SCORES.items():
            pairs = [(found[facts["method"]][key][score], shipped[key][score]) for key in shipped]
            test = paired_test(*map(list, zip(*pairs, strict=True)), "higher")
            facts[f"{label} against shipped"] = test.mean_difference
            facts[f"p of {label}"] = test.p_value
    return table
