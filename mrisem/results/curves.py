"""Curves of per-scan fitting from `fit.csv`, and the final similarities of reconstructions."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mrisem.errors import InputError
from mrisem.files import reading
from mrisem.results.inside import inside
from mrisem.results.run import Run

_KEYS = ("file", "slice", "name")
_COLUMNS = (*_KEYS, "iteration", "value")
_ORDER = ("total", "data_consistency", "gradient_balance", "semantic", "positives", "negatives")
_SIDES = ("positives", "negatives")


def read_curves(runs: Iterable[Run]) -> pd.DataFrame:
    """Read the points of runs: the columns of ``fit.csv``, and ``method`` with the run's label.

    Raises:
        InputError: when a ``fit.csv`` lacks a column or is damaged.
    """
    frames = [_read(run.folder).assign(method=run.label) for run in runs]
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled) if filled else pd.DataFrame(columns=[*_COLUMNS, "method"])


def _read(folder: Path) -> pd.DataFrame:
    """Read the ``fit.csv`` of a run folder; empty: nothing was fitted."""
    path = inside(folder, "fit.csv")
    if not path.is_file():
        return pd.DataFrame(columns=list(_COLUMNS))
    # without types, a file named 0001 would become a number
    kinds: dict[str, Any] = {"file": str, "name": str, "slice": int, "iteration": int}
    with reading(path, "a table of fits", "reconstruct again"):
        frame = pd.read_csv(path, dtype=kinds | {"value": float}, index_col=False)
        if missing := set(_COLUMNS) - set(frame.columns):
            raise InputError(
                f"fit.csv must have columns {sorted(_COLUMNS)}, got {path} without "
                f"{sorted(missing)}; reconstruct again"
            )
        if frame[list(_KEYS)].isna().any(axis=None):
            raise ValueError("a line has no file, slice or name")
    return frame[list(_COLUMNS)]


def final_similarities(run: Run) -> dict[tuple[str, int], dict[str, float]]:
    """Return the similarity of each reconstruction to the two sides of its bank.

    Returns:
        ``{(file, slice): {"similarity_positives": s, "similarity_negatives": s}}``: the last values
        that the fit logged, means over the bank's entries and over levels; empty without a prior.
    """
    values_of: dict[tuple[str, int], dict[str, list[float]]] = {}
    for (file, number, name), points in _read(run.folder).groupby(list(_KEYS), sort=False):
        side, _, level = name.rpartition("_")  # such as positives_13: side and level
        if side in _SIDES and level:
            last = points.sort_values(["iteration", "value"])["value"].iloc[-1]
            sides = values_of.setdefault((file, int(number)), {})
            sides.setdefault(f"similarity_{side}", []).append(float(last))
    return {
        key: {name: float(np.mean(values)) for name, values in sides.items()}
        for key, sides in values_of.items()
    }


def loss_names(names: Sequence[str]) -> list[str]:
    """Return the names of losses among those of curves, in a fixed order; levels by their number.

    With a single level, ``semantic`` is left out, since it equals that level's loss.

    >>> loss_names(["other", "semantic_13", "semantic", "semantic_2", "positives_2", "total"])
    ['total', 'semantic', 'semantic_2', 'semantic_13', 'other']
    >>> loss_names(["semantic", "semantic_2"])
    ['semantic_2']
    """
    losses = [name for name in names if name.rpartition("_")[0] not in _SIDES]
    # with one level both losses are equal, and one curve would hide the other
    one_level = sum(name.startswith("semantic_") for name in losses) == 1
    return sorted((n for n in losses if not (one_level and n == "semantic")), key=_sort_key)


def levels_of(names: Sequence[str]) -> list[str]:
    """Return the levels, in order, whose similarities to both sides of the bank were logged."""
    levels = [name.removeprefix("positives_") for name in sorted(names, key=_sort_key)]
    return [level for level in levels if {f"positives_{level}", f"negatives_{level}"} <= {*names}]


def _sort_key(name: str) -> tuple[int, int, str]:
    """Sort key: kinds of curves in a fixed order, levels by their number, unknown names last."""
    stem, _, level = name.rpartition("_")
    kind = stem if stem in _ORDER else name
    position = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
    return (position, int(level) if level.isdigit() else -1, name)
