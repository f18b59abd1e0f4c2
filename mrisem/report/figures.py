"""Common parts of all figures, and images as PNG bytes."""

import base64
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

_WHITE = 99.0  # percentile of the tissue, at the upper end of the grey window
_OBJECT, _RIM = 0.1, 0.09  # share of the brightest in the object; of its diameter that is its rim
HEADROOM = 1.5  # grey pictures keep what is brighter than the window, up to so many times
GREYS = mpl.colormaps["gray"]
ERROR_MAP = mpl.colormaps["inferno"]
# Dark where nothing changed, as error maps are. Lightness (CIE L*) grows from 10 to 84 to both
# sides alike.
DIFFERENCE_MAP = LinearSegmentedColormap.from_list(
    "difference", ["#a6dbff", "#2b83c6", "#1a1a1a", "#c05f1c", "#ffc48f"]
)
SAMPLES_MAP = ListedColormap(["#101418", "#e6edf3"])
INK, FAINT = "#1c2128", "#c9d1d9"
# Okabe & Ito's colours, told apart by colour-blind readers too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1")
_SHADES = ((0.0, 0.0), (0.45, 1.0), (0.4, 0.0))  # share and level of the grey mixed in
_STYLE: Any = {
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FAINT},
    **{"axes.grid": True, "grid.color": FAINT, "grid.alpha": 0.6, "grid.linewidth": 0.5},
    **{"axes.axisbelow": True, "axes.titlesize": 10, "axes.labelsize": 9},
    **{"xtick.labelsize": 8, "ytick.labelsize": 8},
}
_DPI, _CSS_DPI = 140, 96  # sharp on dense screens at the size of its inches
_LEGEND_LINE = 0.14  # inches
_TILE = 2.0  # inches


@dataclass(frozen=True)
class View:
    """An image ``(y, x)`` in its window.

    The window is ``0 .. top``; of signed differences, in `DIFFERENCE_MAP`, ``-top .. top``.
    """

    label: str
    image: np.ndarray
    top: float
    cmap: Colormap

    @property
    def low(self) -> float:
        """Lower end of the window."""
        return -self.top if self.cmap == DIFFERENCE_MAP else 0.0

    @property
    def is_grey(self) -> bool:
        """Whether the page sets the window, so that the picture exceeds it by `HEADROOM`."""
        return bool(self.cmap == GREYS)

    @property
    def uri(self) -> str:
        """Image in its own pixels, as a ``data:`` address."""
        top = self.top * (HEADROOM if self.is_grey else 1)
        return data_uri(image_png(self.image, top, self.cmap, self.low))


class ShownFigure(Figure):
    """Figure that notebooks show without pyplot."""

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.savefig(out, format="png", dpi=_CSS_DPI)
        return out.getvalue()


@dataclass(frozen=True)
class Drawn:
    """Figure as a ``data:`` address, with the size of its layout in CSS pixels."""

    uri: str
    width: int
    height: int


def tissue_top(image: np.ndarray) -> float:
    """Return the upper end of the grey window: a high percentile of the tissue.

    The rim of the object is left out: the fat under the skin is far brighter than what is looked
    at. The object is the largest region above a share of the brightest pixels, its holes filled;
    the rim is a share of its diameter wide. Where nothing is left, all of the image counts.

    Args:
        image: ``(y, x)`` magnitude.
    """
    from scipy import ndimage

    regions, n_regions = ndimage.label(image > _OBJECT * np.percentile(image, 99.5))
    inside = np.zeros(image.shape, dtype=bool)
    if n_regions:
        largest = int(np.bincount(regions.flat)[1:].argmax()) + 1
        whole = ndimage.binary_fill_holes(regions == largest)
        diameter = 2 * np.sqrt(whole.sum() / np.pi)
        # the image's edge bounds the object, too
        depth = ndimage.distance_transform_edt(np.pad(whole, 1))[1:-1, 1:-1]
        inside = depth > _RIM * diameter
    return float(np.percentile(image[inside] if inside.any() else image, _WHITE)) or 1.0


def colours(labels: Sequence[str]) -> dict[str, str]:
    """Return label -> colour of each method; more methods than colours get other shades."""
    shades = []
    for share, grey in _SHADES:
        for colour in map(mpl.colors.to_rgb, _COLOURS):
            red, green, blue = ((1 - share) * c + share * grey for c in colour)
            shades.append(mpl.colors.to_hex((red, green, blue)))
    return dict(zip(labels, cycle(shades), strict=False))


def as_png(figure: Figure) -> bytes:
    """Render a figure as PNG, in half the time of its ``savefig``, which lays it out twice."""
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    out = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())).save(out, format="png", dpi=(_DPI, _DPI))
    return out.getvalue()


def image_png(image: np.ndarray, top: float, cmap: Colormap = GREYS, low: float = 0.0) -> bytes:
    """Render ``(y, x)`` pixel by pixel, the window ``low .. top`` over the colour map."""
    shares = (image.astype(np.float64) - low) / (top - low)
    picture = Image.fromarray(np.clip(255 * shares, 0, 255).round().astype(np.uint8))
    if cmap != GREYS:  # one byte a pixel and a palette: a third of the size of RGB
        picture = picture.convert("P")
        picture.putpalette(cmap(np.arange(256), bytes=True)[:, :3].tobytes())
    out = io.BytesIO()
    picture.save(out, format="png", optimize=True)
    return out.getvalue()


def drawn(png: bytes) -> Drawn:
    """Return a figure of `as_png` for the page."""
    width, height = Image.open(io.BytesIO(png), formats=["PNG"]).size
    return Drawn(data_uri(png), round(width * _CSS_DPI / _DPI), round(height * _CSS_DPI / _DPI))


def data_uri(png: bytes) -> str:
    """Return PNG bytes as a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def colour_stops(cmap: Colormap) -> str:
    """Return the colour map as the stops of a CSS gradient."""
    return ", ".join(mpl.colors.to_hex(shade) for shade in cmap(np.linspace(0, 1, 9)))


def plain_axes(size: tuple[float, float], title: str, xlabel: str = "") -> tuple[Figure, Axes]:
    """Return a figure of this size in inches, and its axes."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
    axes.set(title=literal(title), xlabel=literal(xlabel))
    return figure, axes


def literal(text: str) -> str:
    r"""Return a text that Matplotlib shows unchanged, without formulas between dollars.

    >>> literal("a $x$")
    'a \\$x\\$'
    """
    return text.replace("$", r"\$")


def folded(label: str) -> str:
    """Break a long label between its parts.

    >>> folded("unrolled + image_same [prior.weight=0.2]").splitlines()
    ['unrolled', '+ image_same', '[prior.weight=0.2]']
    """
    lines = literal(label).replace(" + ", "\n+ ").replace(" [", "\n[").splitlines()
    return "\n".join(part for line in lines for part in textwrap.wrap(line, 28))


def legend_below(figure: Figure) -> None:
    """Add a legend below the axes, where it covers nothing; the figure grows by its height."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    names = [textwrap.fill(literal(label), 62) for label in labels]
    n_lines = sum(1 + name.count("\n") for name in names)
    figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * n_lines)
    figure.legend(handles, names, loc="outside lower center", fontsize=7, frameon=False)


def draw_views(
    grid: Sequence[Sequence[View | None]],
    percent: float,
    unit: str,
    title: str = "",
    names: Sequence[str] = (),
) -> Figure:
    """Draw rows of images, labelled above, with one colour bar.

    Args:
        grid: rows of as many views; None leaves a place empty.
        percent: Share of the grey window at which the windows in colour end, in percent.
        unit: label of the colour bar.
        title: Title of the whole figure.
        names: one a row, or none.
    """
    views = [view for row in grid for view in row]
    height, width = next(view for view in views if view).image.shape
    size = (_TILE * len(grid[0]) + 0.7, (_TILE * height / width + 0.1) * len(grid) + 0.6)
    figure = ShownFigure(figsize=size, layout="constrained")
    figure.suptitle(literal(title), fontsize=10)
    axes = figure.subplots(len(grid), len(grid[0]), squeeze=False)
    for ax, view in zip(axes.flat, views, strict=True):
        ax.set(xticks=[], yticks=[], frame_on=False)
        if view:
            ax.imshow(view.image, view.cmap, vmin=view.low, vmax=view.top, interpolation="nearest")
    for ax, view in zip(axes[0], grid[0], strict=True):
        ax.set_title(folded(view.label) if view else "", fontsize=8)
    for ax, name in zip(axes[:, 0], names, strict=False):
        ax.set_ylabel(literal(name), fontsize=7)
    for view in [view for view in views if view and view.cmap != GREYS][-1:]:
        scale = ScalarMappable(Normalize(percent * view.low / view.top, percent), view.cmap)
        bar = figure.colorbar(scale, ax=list(axes[-1]), shrink=0.9, pad=0.01)
        bar.set_label(unit, fontsize=7)
        bar.ax.tick_params(labelsize=7)
    return figure
