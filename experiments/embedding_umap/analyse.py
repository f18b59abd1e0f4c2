"""Do reconstructions move towards the positives, and do they arrive?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mrisem.results.embedding_files import kept_files, levels_of, read_kept, unit
from mrisem.results.runs import find_runs


def margin(points: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Mean cosine to the positives minus mean cosine to the negatives.

    Args:
        points: ``(n, feature)``.
        positives: ``(p, feature)``, of the bank.
        negatives: ``(q, feature)``, of the bank.

    Returns:
        ``(n,)``; above zero: on the positives' side.
    """
    return unit(points) @ (unit(positives).mean(0) - unit(negatives).mean(0))


def analyse(folder: Path) -> list[dict[str, Any]]:
    """For each level: slices on the positives' side zero-filled, at the fit's start and its end."""
    margins: dict[str, list[np.ndarray]] = {}
    for run in find_runs([folder / "runs"]):
        for file in (one for files in kept_files(run).values() for one in files):
            arrays = read_kept(file)
            for level in levels_of(arrays, file):
                sides = (arrays[f"positives_{level}"], arrays[f"negatives_{level}"])
                path = arrays[f"path_{level}"]
                seen = np.stack([arrays[f"zero_filled_{level}"], path[0], path[-1]])
                margins.setdefault(level, []).append(margin(seen, *sides))
    return [
        {
            "level": level,
            "slices": len(found),
            "moved towards positives": int(sum(one[2] > one[1] for one in found)),
            **{
                f"{name}: nearer to positives": int(sum(one[i] > 0 for one in found))
                for i, name in enumerate(("zero-filled", "start", "end"))
            },
            **{
                f"{name}: mean margin": float(np.mean([one[i] for one in found]))
                for i, name in enumerate(("zero-filled", "start", "end"))
            },
        }
        for level, found in sorted(margins.items(), key=lambda item: int(item[0]))
    ]


def outcome(own: list[dict[str, Any]]) -> str:
    """One line for the table of claims."""
    parts = [
        f"level {row['level']}: {row['moved towards positives']} of {row['slices']} moved towards "
        f"the positives, {row['end: nearer to positives']} ended nearer to them"
        for row in own
    ]
    return "<br>".join(parts)
