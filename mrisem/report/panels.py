"""Image comparisons: choice of slices, and their images and error maps in stated windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mrisem.report.figures import ERROR_MAP, GREYS, SAMPLES_MAP, View, draw_views, tissue_top
from mrisem.results.reading import read_marks, read_slice
from mrisem.results.rows import Row, labels_of
from mrisem.results.run import output_file

_MOST = 6  # slices of a group
_AROUND = 6  # pixels around a lesion that its inset shows


@dataclass(frozen=True)
class Box:
    """Part of an image: rows ``top .. bottom``, columns ``left .. right``, without the ends."""

    top: int
    bottom: int
    left: int
    right: int

    def crop(self, view: View) -> View:
        """Return this part of a view."""
        part = view.image[self.top : self.bottom, self.left : self.right]
        return View(view.label, part, view.top, view.cmap)

    def style(self, size: tuple[int, int]) -> str:
        """Return the box's position in an image of this size ``(y, x)``, as CSS."""
        y, x = (100 / n for n in size)
        height, width = self.bottom - self.top, self.right - self.left
        place = f"top: {self.top * y:.2f}%; left: {self.left * x:.2f}%"
        return f"{place}; height: {height * y:.2f}%; width: {width * x:.2f}%"


@dataclass(frozen=True)
class Tile:
    """Image of a slice by one method, or its target."""

    view: View
    error: View | None  # |image - target|; None without a target
    row: Row | None  # the slice's scores; None for the target


@dataclass(frozen=True)
class Panel:
    """One slice by all methods."""

    file: str
    slice: int
    acquisition: str
    grey: float  # upper end of the grey window, in the file's units
    percent: float  # upper end of the error maps, of the grey window
    tiles: tuple[Tile, ...]  # the target first, when it was found
    note: str = ""  # what is missing, for the reader
    lesion: Box | None = None  # around the largest lesion that the target marks
    samples: View | None = None  # what was measured of k-space; None where not kept


def choose_slices(rows: Sequence[Row], most: int = _MOST) -> list[tuple[str, int]]:
    """Choose representative slices: per acquisition files of middling PSNR, their middle slice.

    The middle one is of those with a lesion, where some have. Only slices that every method
    reconstructed, unless there are none; about ``most``, as many of each acquisition.
    """
    labels, frame = labels_of(rows), pd.DataFrame(rows)
    n_methods = frame.groupby(["file", "slice"])["method"].transform("nunique")
    shared = frame[n_methods == len(labels)] if n_methods.max() == len(labels) else frame
    acquisitions = list(shared.groupby("acquisition"))[:most]
    chosen = []
    for _, members in acquisitions:
        psnr = members[members["method"] == labels[-1]].reindex(columns=["file", "psnr"])
        means = psnr.groupby("file")["psnr"].mean().reindex(sorted(members["file"].unique()))
        off = (means - means.median()).abs().sort_values(kind="stable")
        for file in off.index[: max(1, most // len(acquisitions))]:
            scan = members[members["file"] == file].reindex(columns=["slice", "lesions"])
            marked = scan[scan["lesions"] > 0]
            slices = sorted((marked if len(marked) else scan)["slice"].unique())
            chosen.append((str(file), int(slices[len(slices) // 2])))
    return chosen


def load_panel(
    key: tuple[str, int], rows: Sequence[Row], targets: Mapping[Path, Path], error_window: float
) -> Panel:
    """Load one slice of all methods.

    Args:
        key: file name and slice.
        rows: the group's rows; ``run`` holds the absolute run folder.
        targets: run folder to the folder of its targets.
        error_window: upper end of the error maps, as a share of the grey window.
    """
    file, number = key
    own = [row for row in rows if (row["file"], row["slice"]) == key]
    own.sort(key=lambda row: labels_of(rows).index(row["method"]))
    runs = [Path(row["run"]) for row in own]
    images = [read_slice(output_file(run, file), number) for run in runs]
    places = [targets[run] / file for run in runs if run in targets]
    truths = ((place, read_slice(place, number)) for place in places)
    place, truth = next((pair for pair in truths if pair[1] is not None), (None, None))
    shown = [image for image in (truth, *images) if image is not None]
    grey = tissue_top(shown[0]) if shown else 1.0
    tiles = [] if truth is None else [Tile(View("target", truth, grey, GREYS), None, None)]
    for row, image in zip(own, images, strict=True):
        if image is None:
            continue
        label, error = row["method"], None
        if truth is not None and truth.shape == image.shape:
            error = View(label, np.abs(image - truth), error_window * grey, ERROR_MAP)
        tiles.append(Tile(View(label, image, grey, GREYS), error, row))
    notes = []
    if truth is None:
        notes.append("The target file was not found where it was evaluated: no error maps.")
    if any(image is None for image in images):
        notes.append("Some reconstruction files were moved or removed since: their images miss.")
    labels = None if place is None else read_marks(place, "lesions", number)
    if labels is not None and (truth is None or labels.shape != truth.shape):
        labels = None
    masks = (read_marks(output_file(run, file), "mask", number) for run in runs)
    mask = next((mask for mask in masks if mask is not None), None)
    return Panel(
        *(file, number, own[0]["acquisition"], grey, 100 * error_window, tuple(tiles)),
        note=" ".join(notes),
        lesion=None if labels is None else around_lesion(labels),
        samples=None
        if mask is None
        else View("samples", mask.astype(np.float32), 1.0, SAMPLES_MAP),
    )


def around_lesion(labels: np.ndarray) -> Box | None:
    """Return a box around the largest lesion of a slice; None: the slice has no lesion.

    Args:
        labels: ``(y, x)`` integer: a lesion's number, or 0.
    """
    numbers, sizes = np.unique(labels[labels > 0], return_counts=True)
    if not sizes.size:
        return None
    y, x = np.nonzero(labels == numbers[sizes.argmax()])
    half = max(np.ptp(y), np.ptp(x)) // 2 + _AROUND  # a square: insets of one row are alike
    ends = []
    for places, n in ((y, labels.shape[0]), (x, labels.shape[1])):
        middle = int(places.min() + places.max()) // 2
        ends += [max(0, middle - half), min(n, middle + half + 1)]
    return Box(*map(int, ends))


def panel_figure(panel: Panel) -> Figure:
    """Draw a panel: images above, error maps below, with the colour bar of the error window."""
    images: list[View | None] = [tile.view for tile in panel.tiles]
    errors = [tile.error for tile in panel.tiles]
    grid = [images, errors] if any(errors) else [images]
    return draw_views(grid, panel.percent, "|error|, % of the grey window")
