"""Losses and similarities over the iterations of per-scan fitting."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mrisem.report.curves import Curve
from mrisem.report.figures import Palette, colours, legend_below, plain_axes


def loss_curves(
    name: str, series: Mapping[str, Mapping[str, Curve]], labels: Sequence[str], palette: Palette
) -> Figure:
    """Draw one loss over the iterations: each slice thin, each method's mean bold.

    Args:
        name: the loss.
        series: method to slice to ``(iterations, values)``.
        labels: all methods of the group, so that each keeps its colour.
        palette: colours.
    """
    figure, axes = plain_axes((4.4, 3.2), palette)
    _draw_curves(axes, series, colours(labels), "-")
    pooled = np.concatenate([values for slices in series.values() for _, values in slices.values()])
    pooled = pooled[np.isfinite(pooled)]
    if pooled.size and pooled.min() > 0 and pooled.max() > 20 * pooled.min():
        axes.set_yscale("log")
    _finish_curves(figure, name.replace("_", " "), palette)
    return figure


def similarity_curves(
    title: str,
    sides: tuple[Mapping[str, Mapping[str, Curve]], Mapping[str, Mapping[str, Curve]]],
    labels: Sequence[str],
    palette: Palette,
) -> Figure:
    """Draw the mean similarity to the positives (solid) and to the negatives (dashed).

    Args:
        title: of the figure.
        sides: positives and negatives, each method to slice to ``(iterations, values)``.
        labels: all methods of the group, so that each keeps its colour.
        palette: colours.
    """
    figure, axes = plain_axes((4.4, 3.2), palette)
    for side, style in zip(sides, ("-", "--"), strict=True):
        _draw_curves(axes, side, colours(labels), style)
    _finish_curves(figure, f"{title}\nto positives solid, to negatives dashed", palette)
    return figure


def _draw_curves(
    axes: Axes,
    series: Mapping[str, Mapping[str, Curve]],
    colour_of: Mapping[str, str],
    style: str,
) -> None:
    """Draw each slice thin and the mean bold; only solid lines are named."""
    for label, slices in series.items():
        colour = colour_of[label]
        for iterations, values in slices.values():
            axes.plot(iterations, values, style, color=colour, linewidth=0.6, alpha=0.35)
        mean = _mean_curve(list(slices.values()))
        named = label if style == "-" else None
        axes.plot(*mean, style, color=colour, linewidth=2, label=named)


def _finish_curves(figure: Figure, title: str, palette: Palette) -> None:
    axes = figure.axes[0]
    axes.set_xlabel("iteration", fontsize=9, color=palette.ink)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title, fontsize=10, color=palette.ink)
    legend_below(figure, palette)


def _mean_curve(slices: Sequence[Curve]) -> Curve:
    """Return the mean over slices at every iteration that any of them has."""
    iterations = np.unique(np.concatenate([its for its, _ in slices]))
    means = [
        np.mean([values[its == i].mean() for its, values in slices if (its == i).any()])
        for i in iterations
    ]
    return iterations, np.asarray(means)
