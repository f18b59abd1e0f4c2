"""Losses of per-scan fitting: `fit.csv` to curves by loss, method and slice."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mrisem.errors import InputError
from mrisem.report.runs import Run

Curve = tuple[np.ndarray, np.ndarray]  # iterations, values
Curves = dict[str, dict[str, dict[str, Curve]]]  # loss, method, scan
_ORDER = ("total", "data_consistency", "gradient_balance", "semantic", "positives", "negatives")
SIDES = ("positives", "negatives")
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
    return dict(sorted(curves.items(), key=lambda item: _place(item[0])))


def final_similarities(run: Run) -> dict[tuple[str, int], dict[str, float]]:
    """Return how similar each reconstruction is to the two sides of its bank.

    Returns:
        ``{(file, slice): {"similarity_positives": s, "similarity_negatives": s}}``: the last values
        that the fit logged, means over the bank's entries and over levels; empty where none were.
    """
    path = run.folder / "fit.csv"
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for (name, scan), (_, values) in (_read(path) if path.is_file() else {}).items():
        side, _, level = name.rpartition("_")
        if side in SIDES and level:
            file, _, number = scan.rpartition(" ")
            sides = found.setdefault((file, int(number)), {})
            sides.setdefault(f"similarity_{side}", []).append(float(values[-1]))
    return {
        key: {name: float(np.mean(values)) for name, values in sides.items()}
        for key, sides in found.items()
    }


def paired_sides(curves: Curves) -> dict[str, tuple[str, str]]:
    """Return ``{level: (positives_<level>, negatives_<level>)}`` of curves that belong together."""
    levels = [name.removeprefix("positives_") for name in curves if name.startswith("positives_")]
    sides = {level: (f"positives_{level}", f"negatives_{level}") for level in levels}
    return {level: names for level, names in sides.items() if names[1] in curves}


def _place(name: str) -> tuple[int, int, str]:
    """Sort key: kinds of curves in a fixed order, levels by their number.

    >>> sorted(["other", "semantic_13", "semantic", "semantic_1", "semantic_2"], key=_place)
    ['semantic', 'semantic_1', 'semantic_2', 'semantic_13', 'other']
    """
    stem, _, level = name.rpartition("_")
    kind = stem if stem in _ORDER else name
    place = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
    return (place, int(level) if level.isdigit() else -1, name)


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
