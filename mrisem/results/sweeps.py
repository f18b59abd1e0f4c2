"""Sweeps: runs that differ only in one setting, with their scores on the same slices."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mrisem.metrics.statistics import summarise
from mrisem.results.labels import SAMPLING, references, settings_of
from mrisem.results.rows import Column, Row, labels_of, subject_of, value
from mrisem.results.run import Run

_NOT_SET = "default"
_DECADE = 10.0  # positive numbers of a wider range have a logarithmic axis
Named = tuple[Run, str, dict[str, str]]  # run, its method, its settings
Lines = dict[str, dict[str, list[Run]]]  # line -> value of the parameter -> runs
Points = Mapping[str, Mapping[str, Mapping[str, Any]]]  # line -> value -> summary


@dataclass(frozen=True)
class Sweep:
    """Scores over the values of one parameter, all on the same slices.

    Args:
        parameter: dotted name of the parameter.
        values: values as text, in the order of the axis.
        lines: name of a line, with its other settings -> value -> rows of slices.
        references: label of a reference of these lines -> its rows.
        n: number of slices; 0: the runs share none.
    """

    parameter: str
    values: tuple[str, ...]
    lines: Mapping[str, Mapping[str, Sequence[Row]]]
    references: Mapping[str, Sequence[Row]]
    n: int

    @property
    def axis(self) -> str:
        """Kind of the axis: ``categories``, ``log`` or ``linear``."""
        numbers = [number for text in self.values if (number := _number(text)) is not None]
        if len(numbers) < len(self.values):
            return "categories"
        return "log" if min(numbers) > 0 and max(numbers) > _DECADE * min(numbers) else "linear"

    @property
    def positions(self) -> dict[str, float]:
        """Value -> its position on the axis: its number, or its index among categories."""
        is_index = self.axis == "categories"
        return {text: float(i if is_index else text) for i, text in enumerate(self.values)}

    def points(self, column: Column) -> Points:
        """Return the `line_points` of each line that has the score."""
        points_of = {name: line_points(line, column) for name, line in self.lines.items()}
        return {name: points for name, points in points_of.items() if points}


def find_sweeps(
    runs: Sequence[Run], rows: Sequence[Row], reference_label: str | None = None
) -> list[Sweep]:
    """Return the sweeps of runs of one anatomy and sampling, one for each parameter.

    A line joins runs of one method that differ in the parameter alone. For ``reference_label`` and
    ``rows`` see `mrisem.results.summary.summary_of`.
    """
    labels, reference_of = labels_of(rows), references(runs, reference_label)
    sweeps = []
    for parameter, lines in _swept(_named(runs)).items():
        drawn = {run.label for run in _all(lines)}
        # a reference that is a point of a line needs no line of its own
        against = {reference_of.get(label) for label in drawn} - drawn
        sweeps.append(_sweep(parameter, lines, rows, [x for x in labels if x in against]))
    return sweeps


def find_sampling_sweeps(runs: Sequence[Run], rows: Sequence[Row]) -> list[Sweep]:
    """Return the sweeps over pattern and acceleration of the mask, for runs of one anatomy."""
    named = []
    for run, method, settings in _named(runs):
        factors = ",".join(f"{factor:g}" for factor in run.record.acceleration)
        sampling = (run.record.mask or _NOT_SET, factors or _NOT_SET)
        named.append((run, method, settings | dict(zip(SAMPLING, sampling, strict=True))))
    swept = _swept(named)
    return [_sweep(key, swept[key], rows, ()) for key in SAMPLING if key in swept]


def line_points(
    line: Mapping[str, Sequence[Row]], column: Column
) -> dict[str, dict[str, float | int | None]]:
    """Return mean and spread of a score at each value of a line.

    Means are over the slices that have the score at every value. Differences between slices do not
    concern the parameter. Spread and interval are therefore those of
    ``y_v + sqrt(J / (J - 1)) (d_sv - d_v)``: ``y_v`` is the mean at value v of J, ``d_sv`` the
    difference of slice s from its own mean over the values, and ``d_v`` the mean of ``d_sv`` over
    slices. Source: Cousineau 2005; factor: Morey 2008.

    Returns:
        value -> its `mrisem.metrics.statistics.summarise`; empty: no slice has the score at every
        value.
    """
    facts = [
        {"file": row["file"], "slice": row["slice"], "value": text, "score": value(row, column)}
        for text, rows in line.items()
        for row in rows
    ]
    scored = pd.DataFrame(facts).groupby(["file", "slice", "value"])["score"]
    # repeated runs with one value, such as of several seeds, count as their mean
    table = scored.mean().unstack("value")[list(line)]
    shared = table.replace([np.inf, -np.inf], np.nan).dropna()
    if shared.empty:
        return {}
    scores = shared.to_numpy().T
    within = scores - scores.mean(0)
    within -= within.mean(1, keepdims=True)
    spread = scores.mean(1, keepdims=True) + within * np.sqrt(len(scores) / (len(scores) - 1))
    subject_of_file = {row["file"]: subject_of(row) for rows in line.values() for row in rows}
    subjects = [subject_of_file[file] for file in shared.index.get_level_values("file")]
    return {text: summarise(row, subjects) for text, row in zip(line, spread.tolist(), strict=True)}


def _named(runs: Sequence[Run]) -> list[Named]:
    """Return each run with its method, and the settings that distinguish runs of that method."""
    named: list[Named] = []
    for method in sorted({run.record.method for run in runs}):
        variants = [run for run in runs if run.record.method == method]
        for run, settings in zip(variants, settings_of(variants).values(), strict=True):
            named.append((run, method, {key: text or _NOT_SET for key, text in settings.items()}))
    return named


def _swept(named: Sequence[Named]) -> dict[str, Lines]:
    """Return parameter -> lines with at least two values.

    The name of a line is its method, with the other settings in which lines of that method differ.
    """
    swept: dict[str, Lines] = {}
    for parameter in sorted({key for _, _, settings in named for key in settings}):
        lines: dict[Any, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
        for run, method, settings in named:
            if parameter in settings:
                others = tuple(item for item in settings.items() if item[0] != parameter)
                lines[method, others][settings[parameter]].append(run)
        drawn = {key: line for key, line in lines.items() if len(line) > 1}
        for (method, others), line in drawn.items():
            rivals = [dict(rival) for name, rival in drawn if name == method]
            parts = [f"{k}={v}" for k, v in others if len({rival[k] for rival in rivals}) > 1]
            name = f"{method} [{', '.join(parts)}]" if parts else method
            swept.setdefault(parameter, {})[name] = line
    return swept


def _sweep(parameter: str, lines: Lines, rows: Sequence[Row], against: Sequence[str]) -> Sweep:
    """Make a sweep from its runs.

    Args:
        parameter: dotted name of the parameter.
        lines: runs of each line.
        rows: scores of slices.
        against: labels of the references of these runs.
    """
    slices: dict[str, dict[tuple[str, int], Row]] = defaultdict(dict)
    for row in rows:
        slices[row["run"]][row["file"], row["slice"]] = row
    # only slices of all runs: otherwise values would differ by their scans, too
    shared = set.intersection(*({*slices[str(run.folder)]} for run in _all(lines)))
    values = sorted({text for line in lines.values() for text in line}, key=_axis_order)
    on_lines = {
        name: {
            text: [slices[str(run.folder)][key] for run in line[text] for key in sorted(shared)]
            for text in values
            if text in line
        }
        for name, line in sorted(lines.items())
    }
    references = {}
    for label in against:
        members = [r for r in rows if r["method"] == label and (r["file"], r["slice"]) in shared]
        if {(row["file"], row["slice"]) for row in members} == shared:
            references[label] = members
    return Sweep(parameter, tuple(values), on_lines if shared else {}, references, len(shared))


def _all(lines: Lines) -> list[Run]:
    """Return the runs of all lines."""
    return [run for line in lines.values() for runs in line.values() for run in runs]


def _number(text: str) -> float | None:
    """Return the finite number that a text states; None: it states none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _axis_order(text: str) -> tuple[bool, float, str]:
    """Sort key of values: numbers by size, then words by the alphabet."""
    number = _number(text)
    return number is None, number or 0.0, text
