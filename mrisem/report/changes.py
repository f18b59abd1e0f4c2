"""Difference maps: what a prior changed, beside what there was to change."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mrisem.report.figures import DIFFERENCE_MAP, GREYS, View, draw_views, tissue_top
from mrisem.results.reading import read_slice
from mrisem.results.rows import Row
from mrisem.results.run import output_file

_CHANGE_PERCENTILE = 99.5
_WINDOWS = (0.5, 1, 2, 5, 10, 20, 50, 100)  # percent of the grey window


@dataclass(frozen=True)
class Maps:
    """One slice of a run with a prior (guided) beside the same without (plain).

    All are ``(y, x)`` magnitudes in the target's units.
    """

    title: str
    target: np.ndarray
    plain: np.ndarray
    guided: np.ndarray

    @property
    def top(self) -> float:
        """Upper end of the grey window."""
        return tissue_top(self.target)

    def views(self, window: float) -> list[View]:
        """Return the images and two signed differences: what was changed, what should have been.

        The window of the differences is a share of the grey window.
        """
        grey, signed = (self.top, GREYS), (window * self.top, DIFFERENCE_MAP)
        return [
            View("target", self.target, *grey),
            View("no prior", self.plain, *grey),
            View("prior", self.guided, *grey),
            View("prior - no prior", self.guided - self.plain, *signed),
            View("target - no prior", self.target - self.plain, *signed),
        ]


def load_changes(rows: Sequence[Row], folders: tuple[Path, Path, Path], most: int) -> list[Maps]:
    """Load the slices that changed most; none where a file misses or has another size.

    Args:
        rows: one pair's rows of the audit.
        folders: the run without the prior, the run with it, the input files.
        most: slices.
    """
    plain, guided, targets = folders
    loaded = []
    for row in choose_rows(rows, most):
        file, number = row["file"], row["slice"]
        paths = (targets / file, output_file(plain, file), output_file(guided, file))
        images = [image for path in paths if (image := read_slice(path, number)) is not None]
        if len(images) < len(paths) or len({image.shape for image in images}) > 1:
            return []
        loaded.append(Maps(f"{Path(file).stem}, slice {number}", *images))
    return loaded


def choose_rows(rows: Sequence[Row], most: int) -> list[Row]:
    """Choose slices to show: of each acquisition in turn the one that changed most, then others."""
    by_change = sorted(rows, key=lambda row: -np.nan_to_num(row["difference"]))
    first = {row["acquisition"]: row for row in reversed(by_change)}
    rest = [row for row in by_change if row is not first[row["acquisition"]]]
    return [*(first[name] for name in sorted(first)), *rest][:most]


def difference_window(maps: Sequence[Maps]) -> float:
    """Return the smallest round share of the grey windows that 99.5 % of the changes fit in.

    >>> image = np.ones((4, 4))
    >>> difference_window([Maps("", image, image, image + 0.03)])
    0.05
    """
    changes = [np.abs(one.guided - one.plain) / one.top for one in maps]
    share = max(float(np.percentile(change, _CHANGE_PERCENTILE)) for change in changes)
    return next((w for w in _WINDOWS if w >= 100 * share), _WINDOWS[-1]) / 100


def draw_changes(maps: Sequence[Maps], title: str) -> Figure:
    """Draw a row of `Maps.views` for each slice, all differences in one symmetrical window."""
    window = difference_window(maps)
    grid = [slice_maps.views(window) for slice_maps in maps]
    names = [slice_maps.title.replace(", ", "\n") for slice_maps in maps]
    unit = "signed difference, %\nof the target's grey window"
    return draw_views(grid, 100 * window, unit, title, names)
