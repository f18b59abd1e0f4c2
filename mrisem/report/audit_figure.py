"""Difference maps: what a prior changed, beside what there was to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from mrisem.report.audit import Pair, Row
from mrisem.report.inline import slug
from mrisem.report.results import read_reconstruction, read_target

# Dark where nothing changed, as error maps are: it suits light and dark pages. Lightness (CIE L*)
# grows from 10 to 84 to both sides alike.
DIFFERENCE_MAP = LinearSegmentedColormap.from_list(
    "difference", ["#a6dbff", "#2b83c6", "#1a1a1a", "#c05f1c", "#ffc48f"]
)
NAMES = ("target", "no prior", "prior", "prior - no prior", "target - no prior")
_DPI = 110
_PIXELS: Any = {"interpolation": "nearest"}
_GREY_PERCENTILE, _CHANGE_PERCENTILE = 99.5, 99.5
_WINDOWS = (0.5, 1, 2, 5, 10, 20, 50, 100)  # percent of the grey window


@dataclass(frozen=True)
class Maps:
    """One slice of a pair.

    Args:
        title: what it is.
        target: ``(y, x)`` magnitude; the others in its units.
        plain: without the prior.
        guided: with it.
    """

    title: str
    target: np.ndarray
    plain: np.ndarray
    guided: np.ndarray

    @property
    def top(self) -> float:
        """Upper end of the grey window."""
        return float(np.percentile(self.target, _GREY_PERCENTILE)) or 1.0

    @property
    def images(self) -> tuple[np.ndarray, ...]:
        """What the first of `NAMES` are."""
        return self.target, self.plain, self.guided

    @property
    def changes(self) -> tuple[np.ndarray, np.ndarray]:
        """What the others are, as shares of the grey window."""
        return (self.guided - self.plain) / self.top, (self.target - self.plain) / self.top


def write_figure(folder: Path, pair: Pair, rows: Sequence[Row], targets: Path, most: int) -> Path:
    """Draw the slices of a pair that changed most, into ``audit_<group>_<method>.png``.

    Args:
        folder: of the figures; it is made.
        pair: the runs.
        rows: their rows of the audit.
        targets: folder of the input files.
        most: slices.
    """
    folders = (pair.plain.folder, pair.guided.folder)
    chosen = [load_maps(*folders, targets, row) for row in choose_rows(rows, most)]
    group = f"{pair.guided.anatomy}, {pair.guided.mask}"
    figure = draw_audit(chosen, f"{group}: {pair.guided.label} against {pair.plain.label}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / figure_name(pair.guided.anatomy, pair.guided.mask, pair.guided.label)
    figure.savefig(path, dpi=_DPI)
    return path


def figure_name(anatomy: str, mask: str, method: str) -> str:
    """Return the file name of a pair's picture.

    >>> figure_name("brain", "gaussian R=4", "unrolled + image_same")
    'audit_brain_gaussian_r_4_unrolled_image_same.png'
    """
    return f"audit_{slug(f'{anatomy}, {mask} {method}')}.png"


def choose_rows(rows: Sequence[Row], most: int) -> list[Row]:
    """Choose slices to show: of each acquisition in turn the one that changed most.

    Args:
        rows: one pair's rows of the audit.
        most: slices.
    """
    by_change = sorted(rows, key=lambda row: -np.nan_to_num(row["difference"]))
    first: dict[str, Row] = {}
    for row in by_change:
        first.setdefault(row["acquisition"], row)
    rest = [row for row in by_change if all(row is not one for one in first.values())]
    return [*(first[name] for name in sorted(first)), *rest][:most]


def load_maps(plain: Path, guided: Path, targets: Path, row: Row) -> Maps:
    """Load the images of one row of the audit from the folders of both runs and of the targets."""
    images = []
    for run in (plain, guided):
        volume = read_reconstruction(run / "reconstructions" / row["file"])
        at = int(np.flatnonzero(volume.slices == row["slice"])[0])
        images.append(volume.images[at].numpy())
    target = read_target(targets / row["file"], np.array([row["slice"]]))[0].numpy()
    return Maps(f"{row['file'].removesuffix('.h5')}, slice {row['slice']}", target, *images)


def difference_window(maps: Sequence[Maps]) -> float:
    """Return the smallest round share of the grey windows that 99.5 % of the changes fit in.

    >>> image = np.ones((4, 4))
    >>> difference_window([Maps("", image, image, image + 0.03)])
    0.05
    """
    shares = [float(np.percentile(np.abs(m.changes[0]), _CHANGE_PERCENTILE)) for m in maps]
    return next((w for w in _WINDOWS if w >= 100 * max(shares)), _WINDOWS[-1]) / 100


def draw_audit(maps: Sequence[Maps], title: str) -> Figure:
    """Draw a row of images for each slice: target, both reconstructions, two signed differences.

    ``prior - no prior`` is what the prior changed, ``target - no prior`` what should be changed,
    both in the same window, symmetrical about zero.

    Args:
        maps: at least one slice.
        title: of the whole.
    """
    window = difference_window(maps)
    figure = Figure(figsize=(12, 2.25 * len(maps) + 0.6), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(maps), 5, squeeze=False)
    for axes, one in zip(grid, maps, strict=True):
        for ax, image in zip(axes[:3], one.images, strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=one.top, **_PIXELS)
        for ax, change in zip(axes[3:], one.changes, strict=True):
            ax.imshow(change, DIFFERENCE_MAP, vmin=-window, vmax=window, **_PIXELS)
        axes[0].set_ylabel(one.title.replace(", ", "\n"), fontsize=7)
    _name(grid)
    scale = ScalarMappable(Normalize(-100 * window, 100 * window), DIFFERENCE_MAP)
    bar = figure.colorbar(scale, ax=grid[:, 3:], fraction=0.03, aspect=25, extend="both")
    bar.set_label(f"window ±{100 * window:g} % of the target's grey window", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _name(grid: np.ndarray) -> None:
    for ax, name in zip(grid[0], NAMES, strict=True):
        ax.set_title(name, fontsize=9)
    for ax in grid.flat:
        ax.set(xticks=[], yticks=[])
