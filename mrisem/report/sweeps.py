"""Swept parameters: runs that differ in one setting alone, and their scores on the same slices."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrisem.metrics.statistics import summarise
from mrisem.report.runs import Run, settings_of
from mrisem.report.summary import Column, Row, labels_of, reference_of, value

MASK_KEYS = ("mask", "mask.acceleration")
_NOT_SET = "default"
_DECADE = 10.0  # positive numbers that span more stand on a logarithmic axis
Key = tuple[str, int]  # file, slice
Named = tuple[Run, str, dict[str, str]]  # a run, its line's name, and its settings
Runs = dict[str, dict[str, list[Run]]]  # line, value of the parameter, runs


@dataclass(frozen=True)
class Sweep:
    """Scores over the values of one parameter, all on the same slices.

    Args:
        parameter: its dotted name.
        values: as text, in the order of the axis.
        lines: name of the other settings to value to rows of slices.
        references: what the lines' methods are tested against, on the same slices.
        n: slices; 0 when the runs share none.
    """

    parameter: str
    values: tuple[str, ...]
    lines: Mapping[str, Mapping[str, Sequence[Row]]]
    references: Mapping[str, Sequence[Row]]
    n: int

    @property
    def positions(self) -> dict[str, float]:
        """Return where each value stands on the axis: its number, or its place."""
        numbers = [_number(text) for text in self.values]
        if any(number is None for number in numbers):
            return {text: float(i) for i, text in enumerate(self.values)}
        return {t: float(n) for t, n in zip(self.values, numbers, strict=True) if n is not None}

    @property
    def axis(self) -> str:
        """Return ``categories``, ``log`` or ``linear``."""
        numbers = [_number(text) for text in self.values]
        known = [number for number in numbers if number is not None]
        if len(known) < len(numbers):
            return "categories"
        return "log" if min(known) > 0 and max(known) > _DECADE * min(known) else "linear"


def find_sweeps(runs: Sequence[Run], rows: Sequence[Row], wanted: str | None = None) -> list[Sweep]:
    """Return the parameters swept by runs of one anatomy and sampling.

    A line joins runs of one method that differ in the parameter alone.

    Args:
        runs: of one comparable group.
        rows: of their slices; ``run`` is the absolute folder.
        wanted: one reference for all, or None (see `mrisem.report.summary.reference_of`).
    """
    labels = labels_of(rows)
    sweeps = []
    for parameter, lines in _swept(_named(runs)).items():
        drawn = {run.label for run in _all(lines)}
        against = {reference_of(label, labels, wanted) for label in drawn} - drawn
        sweeps.append(_sweep(parameter, lines, rows, [x for x in labels if x in against]))
    return sweeps


def find_sampling_sweeps(runs: Sequence[Run], rows: Sequence[Row]) -> list[Sweep]:
    """Return the sweeps over pattern and acceleration of the mask, of runs of one anatomy."""
    named = []
    for run, method, settings in _named(runs):
        pattern, _, acceleration = run.mask.partition(" R=")
        mask = _told({"mask": pattern, "mask.acceleration": acceleration})
        named.append((run, method, settings | mask))
    swept = _swept(named)
    return [_sweep(key, swept[key], rows, ()) for key in MASK_KEYS if key in swept]


def line_points(
    line: Mapping[str, Sequence[Row]], column: Column
) -> dict[str, dict[str, float | int | None]]:
    """Return mean and spread of a score at each value of a line.

    Means are over the slices that have the score at every value. What varies between slices alone
    says nothing about the parameter, so that spread and interval are those of
    ``y_v + sqrt(J / (J - 1)) (d_sv - d_v)``, with the mean ``y_v`` at value v of J, and
    ``d_sv`` a slice's difference from its own mean over the values, ``d_v`` its mean over slices.
    Source: Cousineau 2005; factor: Morey 2008.

    Args:
        line: value to rows of slices.
        column: the score.

    Returns:
        value to mean, std, n, low and high (`mrisem.metrics.statistics.summarise`); empty when no
        slice has the score everywhere.
    """
    found = {text: _by_slice(rows, column) for text, rows in line.items()}
    keys = sorted(set.intersection(*(set(scores) for scores in found.values())))
    if not keys:
        return {}
    scores = np.array([[scores[key] for key in keys] for scores in found.values()])
    within = scores - scores.mean(0)
    within -= within.mean(1, keepdims=True)
    spread = scores.mean(1, keepdims=True) + within * np.sqrt(len(scores) / (len(scores) - 1))
    files = [file for file, _ in keys]
    return {text: summarise(row, files) for text, row in zip(found, spread.tolist(), strict=True)}


def _by_slice(rows: Iterable[Row], column: Column) -> dict[Key, float]:
    """Return the finite scores by slice; the mean where runs repeat a slice."""
    found: dict[Key, list[float]] = {}
    for row in rows:
        found.setdefault(_key(row), []).append(value(row, column))
    means = {key: float(np.mean(scores)) for key, scores in found.items()}
    return {key: mean for key, mean in means.items() if np.isfinite(mean)}


def _named(runs: Sequence[Run]) -> list[Named]:
    """Return each run with its method and all settings that any run of the method overrode."""
    named: list[Named] = []
    for method in sorted({run.method for run in runs}):
        mine = [run for run in runs if run.method == method]
        settings = settings_of(mine)
        named += [(run, method, _told(settings[run.folder])) for run in mine]
    return named


def _told(settings: Mapping[str, str | None]) -> dict[str, str]:
    return {key: text or _NOT_SET for key, text in settings.items()}


def _swept(named: Sequence[Named]) -> dict[str, Runs]:
    """Return parameter to lines of at least two values, each line by its name."""
    parameters = sorted({key for _, _, settings in named for key in settings})
    swept = {}
    for parameter in parameters:
        lines: dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, list[Run]]] = {}
        for run, name, settings in named:
            if parameter in settings:
                others = tuple(item for item in settings.items() if item[0] != parameter)
                line = lines.setdefault((name, others), {})
                line.setdefault(settings[parameter], []).append(run)
        long = {key: line for key, line in lines.items() if len(line) > 1}
        if long:
            swept[parameter] = _name_lines(long)
    return swept


def _name_lines(lines: Mapping[Any, dict[str, list[Run]]]) -> Runs:
    """Name lines by their method and by the other settings in which that method's lines differ."""
    named: Runs = {}
    for (name, others), line in lines.items():
        rivals = [dict(other) for method, other in lines if method == name]
        parts = [f"{k}={v}" for k, v in others if len({rival[k] for rival in rivals}) > 1]
        named[f"{name} [{', '.join(parts)}]" if parts else name] = line
    return named


def _sweep(parameter: str, lines: Runs, rows: Sequence[Row], against: Sequence[str]) -> Sweep:
    by_run: dict[Path, list[Row]] = {}
    for row in rows:
        by_run.setdefault(Path(row["run"]), []).append(row)
    shared = set.intersection(
        *({_key(row) for row in by_run.get(run.folder, [])} for run in _all(lines))
    )
    values = sorted({text for line in lines.values() for text in line}, key=_axis_order)
    on_lines = {
        name: {
            text: [row for run in line[text] for row in by_run[run.folder] if _key(row) in shared]
            for text in values
            if text in line
        }
        for name, line in sorted(lines.items())
    }
    references = {
        label: [row for row in rows if row["method"] == label and _key(row) in shared]
        for label in against
    }
    whole = {label: own for label, own in references.items() if {_key(r) for r in own} == shared}
    return Sweep(parameter, tuple(values), on_lines if shared else {}, whole, len(shared))


def _all(lines: Runs) -> list[Run]:
    return [run for line in lines.values() for runs in line.values() for run in runs]


def _key(row: Row) -> Key:
    return row["file"], row["slice"]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _axis_order(text: str) -> tuple[bool, float, str]:
    number = _number(text)
    return number is None, number or 0.0, text
