"""Figures of scores of all slices, over a swept parameter, and over iterations of a fit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mrisem.report.figures import FAINT, INK, colours, folded, legend_below, plain_axes
from mrisem.results.rows import Column, Row, labels_of, value
from mrisem.results.sweeps import Points, Sweep

_NAME_LINE = 0.145  # height of a line of a label, inches
_MAX_TICKS = 8  # with more values of a parameter Matplotlib chooses the ticks
_WIDE_RANGE = 20  # ratio of largest to smallest loss above which the axis is logarithmic


def paired_dots(rows: Sequence[Row], column: Column) -> Figure:
    """Draw each slice as a dot for each method, joined by a line, and the methods' means."""
    facts = [{k: row[k] for k in ("file", "slice", "method")} for row in rows]
    frame = pd.DataFrame(facts).assign(score=[value(row, column) for row in rows]).dropna()
    slices = frame.pivot_table(index=["file", "slice"], columns="method", values="score")
    colour_of = colours(labels_of(rows))
    labels = [label for label in colour_of if label in slices]
    names = [folded(label) for label in labels]
    positions = range(len(labels))
    # the figure grows with the lines of its labels
    n_lines = sum(1.5 + name.count("\n") for name in names)
    figure, axes = plain_axes((4.4, max(2.6, 0.8 + _NAME_LINE * n_lines)), column.title)
    axes.plot(slices[labels].T, positions, color=FAINT, linewidth=0.7, zorder=1)
    for position, label in zip(positions, labels, strict=True):
        scores = frame.loc[frame["method"] == label, "score"]
        axes.plot(scores, [position] * len(scores), "o", color=colour_of[label], ms=4, alpha=0.75)
        mean = scores[np.isfinite(scores)].mean()
        axes.plot([mean, mean], [position - 0.28, position + 0.28], color=INK, linewidth=2)
    axes.set_yticks(positions, names, fontsize=7)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    return figure


def sweep_curves(sweep: Sweep, column: Column, points: Points) -> Figure:
    """Draw the lines of a sweep with bars at their means, and dashed references.

    Args:
        sweep: the sweep.
        column: the score.
        points: means and intervals of the score, from `Sweep.points`.
    """
    figure, axes = plain_axes((4.4, 3.4), column.title, sweep.parameter)
    colour_of = colours([*sweep.lines, *sweep.references])
    for name, line in points.items():
        x = [sweep.positions[text] for text in line]
        means = np.array([summary["mean"] for summary in line.values()], dtype=float)
        bars = np.array([_bar(summary) for summary in line.values()]).T
        axes.errorbar(x, means, yerr=bars, fmt="o-", color=colour_of[name], label=name)
    for name, rows in sweep.references.items():
        scores = np.array([value(row, column) for row in rows])
        if np.isfinite(scores).any():
            mean = float(scores[np.isfinite(scores)].mean())
            axes.axhline(mean, ls="--", color=colour_of[name], label=name)
    _name_values(axes, sweep)
    legend_below(figure)
    return figure


def _bar(summary: Mapping[str, Any]) -> tuple[float, float]:
    """Return the lengths of a bar down and up: the interval, else one standard deviation."""
    if summary["low"] is None:
        return summary["std"] or 0.0, summary["std"] or 0.0
    mean = summary["mean"]
    return max(mean - summary["low"], 0.0), max(summary["high"] - mean, 0.0)


def _name_values(axes: Axes, sweep: Sweep) -> None:
    """Scale the axis of a parameter and label its values."""
    if sweep.axis == "log":
        axes.set_xscale("log")
        axes.minorticks_off()
    if sweep.axis == "categories":
        axes.set_xlim(-0.5, len(sweep.values) - 0.5)
    if sweep.axis == "categories" or len(sweep.values) <= _MAX_TICKS:
        names = [folded(text) for text in sweep.values]
        axes.set_xticks(list(sweep.positions.values()), names)
        if max(map(len, sweep.values)) > 8 or len(sweep.values) > 6:
            axes.tick_params(axis="x", rotation=35)


def fit_curves(title: str, curves: Mapping[str, pd.DataFrame], labels: Sequence[str]) -> Figure:
    """Draw values over the iterations of a fit: thin for each slice, bold for each method's mean.

    Args:
        title: title of the figure.
        curves: line style (one is ``-``) -> points of `mrisem.results.curves.read_curves`.
        labels: all methods of the group, whose order determines colours.
    """
    figure, axes = plain_axes((4.4, 3.2), title, "iteration")
    for style, points in curves.items():
        for label, method_points in points.groupby("method", sort=False):
            colour = colours(labels)[label]
            for _, scan in method_points.groupby(["file", "slice"], sort=False):
                line = scan.sort_values("iteration")
                axes.plot(line["iteration"], line["value"], style, color=colour, lw=0.6, alpha=0.35)
            mean = method_points.groupby("iteration")["value"].mean()
            entry = label if style == "-" else None  # one entry of the legend for each method
            axes.plot(mean.index, mean, style, color=colour, linewidth=2, label=entry)
    values = curves["-"]["value"]
    values = values[np.isfinite(values)]
    if len(curves) == 1 and 0 < _WIDE_RANGE * values.min() < values.max():
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure)
    return figure
