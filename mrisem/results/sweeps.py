"""Swept parameters: runs that differ in one setting alone, and their scores on the same slices."""

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
_DECADE = 10.0  # positive numbers that span more stand on a logarithmic axis
Named = tuple[Run, str, dict[str, str]]  # a run, its method, and its settings
Lines = dict[str, dict[str, list[Run]]]  # line, value of the parameter, runs
Points = Mapping[str, Mapping[str, Mapping[str, Any]]]  # line, value, summary


@dataclass(frozen=True)
class Sweep:
    """Scores over the values of one parameter, all on the same slices."""

    parameter: str  # its dotted name
    values: tuple[str, ...]  # as text, in the order of the axis
    lines: Mapping[str, Mapping[str, Sequence[Row]]]  # other settings to value to rows of slices
    references: Mapping[str, Sequence[Row]]  # what the lines' methods are tested against
    n: int  # slices; 0 when the runs share none

    @property
    def axis(self) -> str:
        """Return ``categories``, ``log`` or ``linear``."""
        numbers = [number for text in self.values if (number := _number(text)) is not None]
        if len(numbers) < len(self.values):
            return "categories"
        return "log" if min(numbers) > 0 and max(numbers) > _DECADE * min(numbers) else "linear"

    @property
    def positions(self) -> dict[str, float]:
        """Return where each value stands on the axis: its number, or its place."""
        places = self.axis == "categories"
        return {text: float(i if places else text) for i, text in enumerate(self.values)}

    def points(self, column: Column) -> Points:
        """Return `line_points` of each line that has the score."""
        found = {name: line_points(line, column) for name, line in self.lines.items()}
        return {name: points for name, points in found.items() if points}


def find_sweeps(runs: Sequence[Run], rows: Sequence[Row], wanted: str | None = None) -> list[Sweep]:
    """Return the parameters swept by runs of one anatomy and sampling.

    A line joins runs of one method that differ in the parameter alone; what it is tested against
    is its reference. For ``wanted`` and ``rows`` see `mrisem.results.summary.summary_of`.
    """
    labels, known = labels_of(rows), references(runs, wanted)
    sweeps = []
    for parameter, lines in _swept(_named(runs)).items():
        drawn = {run.label for run in _all(lines)}
        against = {known.get(label) for label in drawn} - drawn
        sweeps.append(_sweep(parameter, lines, rows, [x for x in labels if x in against]))
    return sweeps


def find_sampling_sweeps(runs: Sequence[Run], rows: Sequence[Row]) -> list[Sweep]:
    """Return the sweeps over pattern and acceleration of the mask, of runs of one anatomy."""
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

    Means are over the slices that have the score at every value. What varies between slices alone
    says nothing about the parameter, so that spread and interval are those of
    ``y_v + sqrt(J / (J - 1)) (d_sv - d_v)``, with the mean ``y_v`` at value v of J, and
    ``d_sv`` a slice's difference from its own mean over the values, ``d_v`` its mean over slices.
    Source: Cousineau 2005; factor: Morey 2008.

    Returns:
        value to its `mrisem.metrics.statistics.summarise`; empty when no slice has the score
        everywhere.
    """
    facts = [
        {"file": row["file"], "slice": row["slice"], "at": text, "score": value(row, column)}
        for text, rows in line.items()
        for row in rows
    ]
    scored = pd.DataFrame(facts).groupby(["file", "slice", "at"])["score"]
    table = scored.mean().unstack("at")[list(line)]  # the mean where runs repeat a slice
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
    """Return each run with its method and the settings that tell the runs of that method apart."""
    named: list[Named] = []
    for method in sorted({run.record.method for run in runs}):
        variants = [run for run in runs if run.record.method == method]
        for run, settings in zip(variants, settings_of(variants).values(), strict=True):
            named.append((run, method, {key: text or _NOT_SET for key, text in settings.items()}))
    return named


def _swept(named: Sequence[Named]) -> dict[str, Lines]:
    """Return parameter to lines of at least two values, each line by its name.

    A line is named by its method and by the other settings in which that method's lines differ.
    """
    swept: dict[str, Lines] = {}
    for parameter in sorted({key for _, _, settings in named for key in settings}):
        lines: dict[Any, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
        for run, method, settings in named:
            if parameter in settings:
                others = tuple(item for item in settings.items() if item[0] != parameter)
                lines[method, others][settings[parameter]].append(run)
        long = {key: line for key, line in lines.items() if len(line) > 1}
        for (method, others), line in long.items():
            rivals = [dict(rival) for name, rival in long if name == method]
            parts = [f"{k}={v}" for k, v in others if len({rival[k] for rival in rivals}) > 1]
            name = f"{method} [{', '.join(parts)}]" if parts else method
            swept.setdefault(parameter, {})[name] = line
    return swept


def _sweep(parameter: str, lines: Lines, rows: Sequence[Row], against: Sequence[str]) -> Sweep:
    slices: dict[str, dict[tuple[str, int], Row]] = defaultdict(dict)
    for row in rows:
        slices[row["run"]][row["file"], row["slice"]] = row
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
        own = [r for r in rows if r["method"] == label and (r["file"], r["slice"]) in shared]
        if {(row["file"], row["slice"]) for row in own} == shared:
            references[label] = own
    return Sweep(parameter, tuple(values), on_lines if shared else {}, references, len(shared))


def _all(lines: Lines) -> list[Run]:
    return [run for line in lines.values() for runs in line.values() for run in runs]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _axis_order(text: str) -> tuple[bool, float, str]:
    number = _number(text)
    return number is None, number or 0.0, text
