"""What is left of each lesion, with the prior and without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def analyse(folder: Path) -> list[dict[str, Any]]:
    """Lesion tables of `mrisem evaluate`: contrast kept (1: as in the target) and local error."""
    summary = json.loads((folder / "runs" / "summary.json").read_text(encoding="utf-8"))
    rows = []
    for table in summary["lesions"]:
        row = {key: table[key] for key in ("anatomy", "mask", "method")}
        row |= {"subjects": table["contrast"]["n_subjects"], "lesions": table["n_lesions"]}
        row |= {"contrast kept": table["contrast"]["mean"], "NMSE": table["error"]["mean"]}
        for name in ("contrast", "error") if table["reference"] else ():
            test = table[f"{name}_test"]
            row[f"{name}: p against {table['reference']}"] = test["p_holm"] or test["reason"]
        rows.append(row)
    return [row for row in rows if row["method"] != "zero_filled"]


def outcome(own: list[dict[str, Any]]) -> str:
    """One line for the table of claims."""
    parts = []
    for row in own:
        tests = [row[key] for key in row if key.startswith("contrast: p")]
        p = "".join(f" ({p})" if isinstance(p, str) else f" (p = {p:.2g})" for p in tests)
        parts.append(f"{row['method']} keeps {row['contrast kept']:.3f} of the contrast{p}")
    return f"{own[0]['lesions']} lesions of {own[0]['subjects']} subjects: {'; '.join(parts)}"
