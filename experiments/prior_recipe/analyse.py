"""Each recipe against the shipped one, and how many scans each harms, as `prior_worth` counts."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from run import own_module

from mrisem.results.rows import Column, group_rows, read_rows
from mrisem.results.summary import paired_tests

SHIPPED = "unrolled + image_same [encoder.path=janus_mini]"
SCORES = [Column("psnr", "PSNR [dB]", "higher", 2), Column("haarpsi", "HaarPSI", "higher", 3)]


def analyse(folder: Path) -> list[dict[str, Any]]:
    """For each group and recipe: harmed scans; mean change against the shipped one, Holm's p."""
    table = own_module("prior_worth", "analyse").analyse(folder)
    against = {facts["method"]: SHIPPED for facts in table if facts["method"] != SHIPPED}
    for group, rows in group_rows(read_rows(folder / "runs" / "metrics.csv")).items():
        tests = {(t["method"], t["metric"]): t for t in paired_tests(rows, SCORES, against)}
        of_group = [facts for facts in table if (facts["anatomy"], facts["mask"]) == group]
        for facts, score in product(of_group, SCORES):
            if facts["method"] in against:
                test = tests[facts["method"], score.name]
                facts[f"{score.label} against shipped"] = test["mean_difference"]
                facts[f"p of {score.label}"] = test["p_holm"] or test["reason"]
    return table
