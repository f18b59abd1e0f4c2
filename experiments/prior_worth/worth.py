"""With the prior against without it, slice by slice: what it is worth.

python experiments/prior_worth/worth.py RUN
"""

from __future__ import annotations

import sys
from pathlib import Path

from mrisem.metrics.statistics import paired_test
from mrisem.report.summary import Row, read_rows

SCORES = {
    "haarpsi": "higher",
    "tenengrad_distance": "lower",
    "ssim": "higher",
    "psnr": "higher",
    "nmse": "lower",
    "data_consistency": "lower",
}
HARMED = 0.01  # loss of HaarPSI above which a scan counts as harmed
REFERENCE = "none/none"
Key = tuple[str, str, int]


def variants(rows: list[Row]) -> dict[str, dict[Key, Row]]:
    """Rows of each variant, ``ablation/encoder``, by mask, file and slice."""
    found: dict[str, dict[Key, Row]] = {}
    for row in rows:
        name = "/".join(row["run"].split("/")[:2])
        found.setdefault(name, {})[(row["mask"], row["file"], row["slice"])] = row
    return found


def compare(ours: dict[Key, Row], theirs: dict[Key, Row]) -> list[str]:
    """Cells of a table's row: each score's mean change with its p-value, share harmed, n."""
    shared = sorted(ours.keys() & theirs.keys())
    cells = []
    for score, better in SCORES.items():
        pairs = [[side[key][score] for key in shared] for side in (ours, theirs)]
        test = paired_test(*pairs, better)
        p = "-" if test.p_value is None else f"{test.p_value:.1g}"
        cells.append(f"{test.mean_difference or 0:+.4f} ({p})")
    harmed = sum(theirs[k]["haarpsi"] - ours[k]["haarpsi"] > HARMED for k in shared)
    return [*cells, f"{harmed} of {len(shared)}"]


def main() -> None:
    """Print a markdown table over all slices, and one for each anatomy and mask."""
    rows = read_rows(Path(sys.argv[1]) / "metrics.csv")
    groups = {"all": rows}
    for row in rows:
        groups.setdefault(f"{row['anatomy']}, {row['mask']}", []).append(row)
    for title, members in groups.items():
        found = variants(members)
        reference = found.pop(REFERENCE)
        means = {s: sum(row[s] for row in reference.values()) / len(reference) for s in SCORES}
        print(f"\n{title}: without prior " + ", ".join(f"{k} {v:.4f}" for k, v in means.items()))
        print("change of the mean (Wilcoxon p) | " + " | ".join(SCORES) + " | harmed")
        print("|".join(["---"] * (len(SCORES) + 2)))
        for name, ours in found.items():
            print(f"{name} | " + " | ".join(compare(ours, reference)))


if __name__ == "__main__":
    main()
