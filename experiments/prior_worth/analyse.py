"""How many scans does each variant harm, and by how much at most?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mrisem.results.rows import Row, labels_of, read_rows

HARMED = 0.01  # loss of HaarPSI above which a scan counts as harmed
REFERENCE = "unrolled"


def analyse(folder: Path) -> list[dict[str, Any]]:
    """For each method: scans whose HaarPSI fell, against the fit without a prior."""
    found: dict[str, dict[tuple[str, str, int], Row]] = {}
    rows = read_rows(folder / "runs" / "metrics.csv")
    for row in rows:
        found.setdefault(row["method"], {})[row["mask"], row["file"], row["slice"]] = row
    reference, table = found[REFERENCE], []
    for method in labels_of(rows):
        if method == REFERENCE:
            continue
        shared = found[method].keys() & reference.keys()
        losses = [reference[key]["haarpsi"] - found[method][key]["haarpsi"] for key in shared]
        harmed = sum(loss > HARMED for loss in losses)
        facts = {"method": method, "harmed": harmed, "scans": len(losses)}
        table.append(facts | {"largest loss of HaarPSI": max(losses)})
    return table
