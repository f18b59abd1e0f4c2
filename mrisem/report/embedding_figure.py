"""The UMAP picture itself: bank, zero-filled images and paths, a panel a level."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mrisem.report.embedding import Picture
from mrisem.report.embedding_files import Points
from mrisem.report.figures import Palette, colours

_COLOUR = colours(("positives", "negatives", "zero-filled"))
_PANEL = 3.4  # inches


def embedding_figure(picture: Picture, palette: Palette) -> Figure:
    """Draw a picture of embeddings for a light or a dark page."""
    n = len(picture.panels)
    figure = Figure(
        figsize=(_PANEL * n, _PANEL + 0.5), facecolor=palette.paper, layout="constrained"
    )
    for axes, panel in zip(figure.subplots(1, n, squeeze=False)[0], picture.panels, strict=True):
        _bare(axes, palette)
        axes.set_title(f"{panel.title} ({panel.method})", fontsize=10, color=palette.ink)
        _draw(axes, panel.points, palette)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(labels) if n > 1 else 2,
        fontsize=8,
        frameon=False,
        labelcolor=palette.ink,
    )
    return figure


def _bare(axes: Axes, palette: Palette) -> None:
    """Take the ticks away: the plane's coordinates mean nothing."""
    axes.set(xticks=[], yticks=[], facecolor=palette.paper)
    for spine in axes.spines.values():
        spine.set_color(palette.faint)


def _draw(axes: Axes, points: Points, palette: Palette) -> None:
    size = 16 if len(points.stacked) < 400 else 6
    for label, side in (("positives", points.positives), ("negatives", points.negatives)):
        look: dict[str, Any] = {"alpha": 0.55, "linewidths": 0, "color": _COLOUR[label]}
        axes.scatter(side[:, 0], side[:, 1], s=size, label=label, **look)
    x, y = points.zero_filled.T
    crossed: dict[str, Any] = {"marker": "x", "linewidths": 1.6, "zorder": 6}
    axes.scatter(x, y, s=44, color=_COLOUR["zero-filled"], label="zero-filled", **crossed)
    strengthening = LinearSegmentedColormap.from_list("path", [palette.faint, palette.ink])
    for path in points.paths:
        steps = np.stack([path[:-1], path[1:]], axis=1)  # (step, end, 2)
        shades = strengthening(np.linspace(0, 1, max(len(steps), 1)))[: len(steps)]
        dotted = strengthening(np.linspace(0, 1, len(path)))
        axes.scatter(path[:, 0], path[:, 1], s=7, color=dotted, zorder=3)
        axes.add_collection(LineCollection(list(steps), colors=shades, linewidths=1.4, zorder=3))
    ends = np.array([path[-1] for path in points.paths if len(path)]).reshape(-1, 2)
    around: dict[str, Any] = {"edgecolors": palette.paper, "linewidths": 0.8, "zorder": 5}
    axes.plot([], [], color=strengthening(0.6), linewidth=1.4, label="reconstruction's path")
    axes.scatter(ends[:, 0], ends[:, 1], s=34, color=palette.ink, label="its end", **around)
