"""Difference maps: what a prior changed, beside what there was to change."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mrisem.report.figures import DIFFERENCE_MAP, GREY_PERCENTILE, GREYS, View, draw_views
from mrisem.report.results import read_reconstruction, read_target
from mrisem.report.summary import Row

_CHANGE_PERCENTILE = 99.5
_WINDOWS = (0.5, 1, 2, 5, 10, 20, 50, 100)  # percent of the grey window


@dataclass(frozen=True)
class Maps:
    """One slice of a run with a prior beside the same without.

    Args:
        title: file and slice.
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
        return float(np.percentile(self.target, GREY_PERCENTILE)) or 1.0

    def views(self, window: float) -> list[View]:
        """Return the images and two signed differences: what was changed, what should have been.

        Args:
            window: of the differences, as a share of the grey window.
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
    """Load the slices that changed most, of each acquisition in turn.

    Args:
        rows: one pair's rows of the audit.
        folders: the run without the prior, the run with it, the input files.
        most: slices.

    Returns:
        the slices; none where one of their files is not there.
    """
    plain, guided, targets = folders
    loaded = []
    for row in choose_rows(rows, most):
        file, number = row["file"], row["slice"]
        runs = [folder / "reconstructions" / file for folder in (plain, guided)]
        if not all(path.is_file() for path in (*runs, targets / file)):
            return []
        volumes = map(read_reconstruction, runs)
        images = [volume.images[volume.slices.index(number)].numpy() for volume in volumes]
        target = read_target(targets / file, [number]).images[number].numpy()
        loaded.append(Maps(f"{file.removesuffix('.h5')}, slice {number}", target, *images))
    return loaded


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
    rest = [row for row in by_change if all(row is not chosen for chosen in first.values())]
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
