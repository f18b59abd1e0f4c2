"""Matplotlib figures, each drawable for light and for dark pages, and images as PNG bytes."""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from mrisem.report.panels import Panel
from mrisem.report.summary import Column, Row, labels_of, value

ERROR_MAP = "inferno"
# Okabe & Ito's colours, told apart by colour-blind readers too; black follows the page.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1")
_SHADES = (0.0, 0.45, -0.4)
_DPI = 140
_LEGEND_LINE = 0.14  # inches
_LETTERS = 52  # that fit below the axes of `paired_dots` side by side; more stand upright
_LINES = 30  # that fit there upright


@dataclass(frozen=True)
class Palette:
    """Colours of a page: its name, the ink and the paper."""

    name: str
    ink: str
    paper: str
    faint: str


LIGHT = Palette("light", "#1c2128", "#ffffff", "#c9d1d9")
DARK = Palette("dark", "#e6edf3", "#161b22", "#444c56")


def colours(labels: Sequence[str]) -> dict[str, str]:
    """Return one colour for each method, in order; each turn through the colours has its shade."""
    n = len(_COLOURS)
    return {label: _shade(_COLOURS[i % n], _SHADES[i // n % 3]) for i, label in enumerate(labels)}


def _shade(colour: str, shade: float) -> str:
    """Mix a colour with white (``shade`` > 0) or black (< 0)."""
    end = float(shade > 0)
    red, green, blue = (c + abs(shade) * (end - c) for c in mpl.colors.to_rgb(colour))
    return mpl.colors.to_hex((red, green, blue))


def as_png(figure: Figure) -> bytes:
    """Render a figure."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI, facecolor=figure.get_facecolor())
    return out.getvalue()


def image_png(image: np.ndarray, top: float, cmap: str | Colormap = "gray") -> bytes:
    """Render ``(y, x)`` pixel by pixel, the window 0 .. ``top`` over the colour map."""
    levels = np.clip(255 * image / top, 0, 255).round().astype(np.uint8)
    picture = Image.fromarray(levels)
    if cmap != "gray":  # one byte a pixel and a palette: a third of the size of RGB
        picture = picture.convert("P")
        shades = mpl.colormaps.get_cmap(cmap)(np.arange(256), bytes=True)
        picture.putpalette(shades[:, :3].tobytes())
    out = io.BytesIO()
    picture.save(out, format="png", optimize=True)
    return out.getvalue()


def colour_stops(cmap: str | Colormap = ERROR_MAP, n: int = 9) -> str:
    """Return the colour map as the stops of a CSS gradient."""
    shades = mpl.colormaps.get_cmap(cmap)(np.linspace(0, 1, n))
    return ", ".join(mpl.colors.to_hex(shade) for shade in shades)


def as_webp(png: bytes) -> bytes:
    """Return a figure's PNG as lossless WebP: the same pixels in less than half the bytes."""
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(out, format="webp", lossless=True, method=4)
    return out.getvalue()


def plain_axes(size: tuple[float, float], palette: Palette) -> tuple[Figure, Axes]:
    """Return a figure of that many inches and its axes, in the palette's colours."""
    figure = Figure(figsize=size, facecolor=palette.paper, layout="constrained")
    axes = figure.add_subplot(facecolor=palette.paper)
    axes.tick_params(colors=palette.ink, labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(palette.faint)
    axes.grid(axis="y", color=palette.faint, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def paired_dots(rows: Sequence[Row], column: Column, palette: Palette) -> Figure:
    """Draw every slice as a dot for each method, joined by a line, and the methods' means."""
    labels = labels_of(rows)
    names = [folded(label) for label in labels]
    longest = max(len(line) for name in names for line in name.splitlines())
    upright = len(labels) * (longest + 1) > _LETTERS
    figure, axes = plain_axes((4.4, 5.0 if upright else 3.4), palette)
    slices: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        key = (row["file"], row["slice"])
        slices.setdefault(key, {})[row["method"]] = value(row, column)
    for found in slices.values():
        heights = [found.get(label, np.nan) for label in labels]
        axes.plot(heights, color=palette.faint, linewidth=0.7, zorder=1)
    for i, (label, colour) in enumerate(colours(labels).items()):
        heights = [found[label] for found in slices.values() if label in found]
        axes.plot([i] * len(heights), heights, "o", color=colour, markersize=4, alpha=0.75)
        finite = [h for h in heights if np.isfinite(h)]
        if finite:
            axes.plot([i - 0.28, i + 0.28], [np.mean(finite)] * 2, color=palette.ink, linewidth=2)
    if upright:
        _name_upright(axes, labels)
    else:
        axes.set_xticks(range(len(labels)), names)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    direction = "higher is better" if column.better == "higher" else "lower is better"
    axes.set_title(f"{column.label}, {direction}", fontsize=10, color=palette.ink)
    return figure


def _name_upright(axes: Axes, labels: Sequence[str]) -> None:
    """Write the methods below the axis from top to bottom, so that no two names overlap."""
    n_lines = max(1, _LINES // len(labels))  # of each name
    width = next(w for w in count(32) if all(len(textwrap.wrap(x, w)) <= n_lines for x in labels))
    names = [textwrap.fill(label, width) for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=90, linespacing=1.15)
    axes.tick_params(axis="x", labelsize=6)


def folded(label: str) -> str:
    """Break a label where its parts meet; overrides may hold long paths.

    >>> folded("unrolled + image_same [prior.weight=0.2]").splitlines()
    ['unrolled', '+ image_same', '[prior.weight=0.2]']
    """
    lines = label.replace(" + ", "\n+ ").replace(" [", "\n[").splitlines()
    return "\n".join(part for line in lines for part in textwrap.wrap(line, 28))


def legend_below(figure: Figure, palette: Palette) -> None:
    """Name the lines below the axes, where they cover nothing; the figure grows by as much."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    names = [textwrap.fill(label, 62) for label in labels]
    n_lines = sum(1 + name.count("\n") for name in names)
    figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * n_lines)
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        fontsize=7,
        frameon=False,
        labelcolor=palette.ink,
    )


def panel_figure(panel: Panel, palette: Palette = LIGHT) -> Figure:
    """Draw a panel: images above, error maps below, with the colour bar of the error window."""
    n = len(panel.tiles)
    height, width = panel.tiles[0].image.shape
    with_errors = any(tile.error is not None for tile in panel.tiles)
    n_rows = 1 + with_errors
    size = (2.0 * n + 0.7 * with_errors, 2.0 * n_rows * height / width + 0.6)
    figure = Figure(figsize=size, facecolor=palette.paper, layout="constrained")
    grid = figure.subplots(n_rows, n, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for tile, column in zip(panel.tiles, grid.T, strict=True):
        column[0].imshow(tile.image, cmap="gray", vmin=0, vmax=panel.grey)
        column[0].set_title(folded(tile.label), fontsize=8, color=palette.ink)
        if tile.error is not None:
            top = panel.error_window * panel.grey
            column[1].imshow(tile.error, cmap=ERROR_MAP, vmin=0, vmax=top)
    if with_errors:
        scale = ScalarMappable(Normalize(0, 100 * panel.error_window), ERROR_MAP)
        bar = figure.colorbar(scale, ax=list(grid[1]), shrink=0.9, pad=0.01)
        bar.set_label("|error|, % of the grey window", fontsize=7, color=palette.ink)
        bar.ax.tick_params(labelsize=7, colors=palette.ink)
    return figure
