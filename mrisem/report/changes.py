"""Difference maps: changes by a prior, beside the errors that there were without it."""

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
    """One slice of a run with a prior, and of the same run without it, beside the target.

    Args:
        title: name of file and slice.
        target: ``(y, x)`` magnitude of the target.
        plain: ``(y, x)`` magnitude without the prior, in the target's unit.
        guided: ``(y, x)`` magnitude with the prior, in the target's unit.
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
        """Return the images, the change by the prior, and the change that would be right.

        Args:
            window: window of the two signed differences, as a share of the grey window.
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
    """Load the slices that changed most; empty if a file is missing or has another size.

    Args:
        rows: rows of the audit of one pair of runs.
        folders: run without the prior, run with it, and input files.
        most: largest number of slices.
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
    """Choose slices to show: first the most changed one of each acquisition, then others."""
    # a change of NaN, as of an image with NaN, counts as none
    by_change = sorted(rows, key=lambda row: -np.nan_to_num(row["difference"]))
    first = {row["acquisition"]: row for row in reversed(by_change)}
    rest = [row for row in by_change if row is not first[row["acquisition"]]]
    return [*(first[name] for name in sorted(first)), *rest][:most]


def difference_window(maps: Sequence[Maps]) -> float:
    """Return the smallest round share of the grey windows that holds 99.5 % of the changes.

    >>> image = np.ones((4, 4))
    >>> difference_window([Maps("", image, image, image + 0.03)])
    0.05
    """
    changes = [np.abs(slice_maps.guided - slice_maps.plain) / slice_maps.top for slice_maps in maps]
    share = max(float(np.percentile(change, _CHANGE_PERCENTILE)) for change in changes)
    return next((w for w in _WINDOWS if w >= 100 * share), _WINDOWS[-1]) / 100


def draw_changes(maps: Sequence[Maps], title: str) -> Figure:
    """Draw a row of `Maps.views` for each slice, with one window for all differences."""
    window = difference_window(maps)
    grid = [slice_maps.views(window) for slice_maps in maps]
    names = [slice_maps.title.replace(", ", "\n") for slice_maps in maps]
    unit = "signed difference, %\nof the target's grey window"
    return draw_views(grid, 100 * window, unit, title, names)
