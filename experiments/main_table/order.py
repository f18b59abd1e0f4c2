"""Does the order of the methods make sense? Counts of slices, and prior against no prior.

python experiments/main_table/order.py RUN/metrics.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

from mrisem.metrics.statistics import paired_test
from mrisem.report.summary import Row, group_rows, labels_of, read_rows

SCORES = ("psnr", "ssim", "nmse", "haarpsi", "tenengrad", "data_consistency")


def by_slice(rows: list[Row], method: str) -> dict[tuple, Row]:
    """Rows of a method by file and slice."""
    return {(row["file"], row["slice"]): row for row in rows if row["method"] == method}


def below(rows: list[Row], method: str, other: str, score: str) -> tuple[int, int]:
    """Number of slices on which ``method`` scores below ``other``, and of all."""
    ours, theirs = by_slice(rows, method), by_slice(rows, other)
    shared = ours.keys() & theirs.keys()
    return sum(ours[key][score] < theirs[key][score] for key in shared), len(shared)


def print_counts(rows: list[Row], methods: list[str]) -> None:
    """Slices below zero-filled and below CG-SENSE."""
    print(f"  {'slices below':30s}{'zero_filled':>18s}{'cg_sense':>18s}   (PSNR, SSIM)")
    for method in methods:
        cells = []
        for other in ("zero_filled", "cg_sense"):
            if other == method or other not in methods:
                cells.append("")
                continue
            counts = [below(rows, method, other, score) for score in ("psnr", "ssim")]
            cells.append(f"{counts[0][0]}, {counts[1][0]} of {counts[0][1]}")
        print(f"  {method:30s}{cells[0]:>18s}{cells[1]:>18s}")


def print_pairs(rows: list[Row], methods: list[str]) -> None:
    """Each method with an addition against the same without: mean difference, p, n."""
    for method in methods:
        base, _, addition = method.rpartition(" + ")
        if not addition or base not in methods:
            continue
        ours, theirs = by_slice(rows, method), by_slice(rows, base)
        shared = sorted(ours.keys() & theirs.keys())
        print(f"  {method} against {base}, n = {len(shared)}")
        for score in SCORES:
            pairs = [[side[key][score] for key in shared] for side in (ours, theirs)]
            test = paired_test(*pairs, "higher")
            p = test.reason if test.p_value is None else f"p = {test.p_value:.3g}"
            print(f"    {score:18s} {test.mean_difference or 0:+.4f}   {p}")


def main() -> None:
    """Print both for every group of comparable slices, and the pairs over all of them."""
    rows = read_rows(Path(sys.argv[1]))
    for (anatomy, mask), group in group_rows(rows).items():
        print(f"\n{anatomy}, {mask}")
        print_counts(group, labels_of(group))
    print("\nadditions, over all groups")
    for row in rows:  # a slice counts once for each mask
        row["file"] = f"{row['file']} {row['mask']}"
    print_pairs(rows, labels_of(rows))


if __name__ == "__main__":
    main()
