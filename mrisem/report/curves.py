"""Losses of per-scan fitting: `fit.csv` to curves by loss, method and slice."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mrisem.report.runs import Run
from mrisem.types import InputError

Curve = tuple[np.ndarray, np.ndarray]  # iterations, values
Curves = dict[str, dict[str, dict[str, Curve]]]  # loss, method, scan
_FIRST = ("total", "data_consistency", "semantic", "semantic_low", "semantic_mid", "semantic_high")
_COLUMNS = {"file", "slice", "iteration", "name", "value"}


def read_curves(runs: Iterable[Run]) -> Curves:
    """Return ``{loss: {method: {"file slice": (iterations, values)}}}`` of comparable runs.

    Raises:
        InputError: a ``fit.csv`` lacks a column.
    """
    curves: Curves = {}
    for run in runs:
        path = run.folder / "fit.csv"
        if path.is_file():
            for (name, scan), curve in _read(path).items():
                curves.setdefault(name, {}).setdefault(run.label, {})[scan] = curve
    order = {name: i for i, name in enumerate(_FIRST)}
    return dict(sorted(curves.items(), key=lambda item: (order.get(item[0], 99), item[0])))


def _read(path: Path) -> dict[tuple[str, str], Curve]:
    points: dict[tuple[str, str], list[tuple[int, float]]] = {}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = _COLUMNS - set(reader.fieldnames or ())
        if missing:
            raise InputError(
                f"fit.csv must have columns {sorted(_COLUMNS)}, got {path} without "
                f"{sorted(missing)}; reconstruct again"
            )
        for row in reader:
            key = (row["name"], f"{row['file']} {row['slice']}")
            points.setdefault(key, []).append((int(float(row["iteration"])), float(row["value"])))
    return {
        key: (np.array([i for i, _ in sorted(found)]), np.array([v for _, v in sorted(found)]))
        for key, found in points.items()
    }
