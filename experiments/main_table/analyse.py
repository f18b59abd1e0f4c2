"""Does the order of the methods make sense? Slices on which a method falls below simple ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mrisem.results.rows import Row, group_rows, labels_of, read_rows

SIMPLE = ("zero_filled", "cg_sense")
SCORES = ("psnr", "ssim")


def by_slice(rows: list[Row], method: str) -> dict[tuple[str, int], Row]:
    """Rows of a method by file and slice."""
    return {(row["file"], row["slice"]): row for row in rows if row["method"] == method}


def analyse(folder: Path) -> list[dict[str, Any]]:
    """Count, for each group and method, slices below zero-filled and below CG-SENSE.

    A simple method is held against simpler ones only; where no slice is below, there is no row.
    """
    counts = []
    for (anatomy, mask), group in group_rows(read_rows(folder / "runs" / "metrics.csv")).items():
        for method in labels_of(group):
            ours = by_slice(group, method)
            for other in SIMPLE[: SIMPLE.index(method)] if method in SIMPLE else SIMPLE:
                theirs = by_slice(group, other)
                shared = ours.keys() & theirs.keys()
                for score in SCORES:
                    below = sum(ours[key][score] < theirs[key][score] for key in shared)
                    facts = {"anatomy": anatomy, "mask": mask, "method": method, "score": score}
                    if below:
                        counts.append(facts | {"below": other, "slices": below, "n": len(shared)})
    return counts
