"""How many scans does each variant harm, and by how much at most?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mrisem.results.rows import Row, group_rows, labels_of, read_rows

HARMED = 0.01  # loss of HaarPSI above which a scan counts as harmed
REFERENCE = "unrolled"


def analyse(folder: Path) -> list[dict[str, Any]]:
    """For each group and method: scans whose HaarPSI fell, against the fit without a prior."""
    table = []
    for (anatomy, mask), rows in group_rows(read_rows(folder / "runs" / "metrics.csv")).items():
        scans: dict[str, dict[tuple[str, int], Row]] = {}
        for row in rows:
            scans.setdefault(row["method"], {})[row["file"], row["slice"]] = row
        reference = scans[REFERENCE]
        for method in labels_of(rows):
            if method == REFERENCE:
                continue
            shared = scans[method].keys() & reference.keys()
            losses = [reference[key]["haarpsi"] - scans[method][key]["haarpsi"] for key in shared]
            harmed = sum(loss > HARMED for loss in losses)
            facts = {"anatomy": anatomy, "mask": mask, "method": method, "harmed": harmed}
            table.append(facts | {"scans": len(losses), "largest loss of HaarPSI": max(losses)})
    return table
