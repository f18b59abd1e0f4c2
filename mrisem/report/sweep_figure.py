"""A score over the values of a swept parameter."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mrisem.report.figures import Palette, colours, folded, legend_below, plain_axes
from mrisem.report.summary import Column, value
from mrisem.report.sweeps import Sweep, line_points

Points = Mapping[str, Mapping[str, Mapping[str, float | int | None]]]  # line, value, summary
_MOST_TICKS = 8


def sweep_points(sweep: Sweep, column: Column) -> Points:
    """Return what `sweep_curves` draws; empty when no line has the score."""
    found = {name: line_points(line, column) for name, line in sweep.lines.items()}
    return {name: points for name, points in found.items() if points}


def sweep_curves(sweep: Sweep, column: Column, points: Points, palette: Palette) -> Figure:
    """Draw a line for each of the other settings, bars about its means, references dashed.

    Args:
        sweep: parameter, values and references.
        column: the score.
        points: of `sweep_points`.
        palette: colours.
    """
    figure, axes = plain_axes((4.4, 3.4), palette)
    colour_of = colours([*sweep.lines, *sweep.references])
    for name, line in points.items():
        x = [sweep.positions[text] for text in line]
        means = np.array([summary["mean"] for summary in line.values()], dtype=float)
        axes.errorbar(
            x, means, yerr=_bars(line, means), fmt="o-", color=colour_of[name], label=name
        )
    for name, rows in sweep.references.items():
        scores = np.array([value(row, column) for row in rows])
        scores = scores[np.isfinite(scores)]
        if scores.size:
            axes.axhline(float(scores.mean()), ls="--", color=colour_of[name], label=name)
    _name_values(axes, sweep)
    axes.set_xlabel(sweep.parameter, fontsize=9, color=palette.ink)
    direction = "higher is better" if column.better == "higher" else "lower is better"
    axes.set_title(f"{column.label}, {direction}", fontsize=10, color=palette.ink)
    legend_below(figure, palette)
    return figure


def _bars(
    line: Mapping[str, Mapping[str, float | int | None]], means: np.ndarray
) -> np.ndarray | None:
    """Return how far bars reach down and up: the interval, else one standard deviation."""
    ends = []
    for summary, mean in zip(line.values(), means, strict=True):
        low, high, std = summary["low"], summary["high"], summary["std"]
        if low is not None and high is not None:
            ends.append((mean - low, high - mean))
        elif std is not None:
            ends.append((std, std))
        else:
            return None
    return np.clip(np.array(ends).T, 0, None)


def _name_values(axes: Axes, sweep: Sweep) -> None:
    """Mark the values that were run."""
    if sweep.axis == "log":
        axes.set_xscale("log")
        axes.minorticks_off()
    if sweep.axis == "categories":
        axes.set_xlim(-0.5, len(sweep.values) - 0.5)
    if sweep.axis == "categories" or len(sweep.values) <= _MOST_TICKS:
        names = [folded(text) for text in sweep.values]
        axes.set_xticks(list(sweep.positions.values()), names)
        if max(map(len, sweep.values)) > 8 or len(sweep.values) > 6:
            axes.tick_params(axis="x", rotation=35)
