"""Image comparisons: which slices to show, and their images and error maps at stated windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mrisem.report.figures import ERROR_MAP, GREY_PERCENTILE, GREYS, View, draw_views
from mrisem.results.reading import read_origin, read_slice
from mrisem.results.rows import Row, labels_of
from mrisem.results.run import output_file


@dataclass(frozen=True)
class Tile:
    """One method's image of a slice, or the target."""

    view: View
    error: View | None  # |image - target|; None without a target
    row: Row | None  # the slice's scores; None for the target


@dataclass(frozen=True)
class Panel:
    """One slice through all methods."""

    file: str
    slice: int
    acquisition: str
    grey: float  # upper end of the grey window, in the file's units
    percent: float  # upper end of the error maps, of the grey window
    tiles: tuple[Tile, ...]  # the target first, when it was found
    note: str = ""  # what is missing, for the reader
    origin: str = ""  # "simulated from images" where the scan was


def choose_slices(rows: Sequence[Row], most: int = 4) -> list[tuple[str, int]]:
    """Choose representative slices: per acquisition files of middling PSNR, their middle slice.

    Only slices that every method reconstructed, unless there are none; one or two files for each
    acquisition, so that about ``most`` slices are shown.
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
        for file in off.index[: min(2, max(1, most // len(acquisitions)))]:
            slices = sorted(members.loc[members["file"] == file, "slice"].unique())
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
    truths = (read_slice(targets[run] / file, number) for run in runs if run in targets)
    truth = next((image for image in truths if image is not None), None)
    shown = [image for image in (truth, *images) if image is not None]
    grey = (float(np.percentile(shown[0], GREY_PERCENTILE)) if shown else 0.0) or 1.0
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
    acquisition, percent = own[0]["acquisition"], 100 * error_window
    origin = next(filter(None, (read_origin(output_file(run, file)) for run in runs)), "")
    note = " ".join(notes)
    return Panel(file, number, acquisition, grey, percent, tuple(tiles), note, origin)


def panel_figure(panel: Panel) -> Figure:
    """Draw a panel: images above, error maps below, with the colour bar of the error window."""
    images: list[View | None] = [tile.view for tile in panel.tiles]
    errors = [tile.error for tile in panel.tiles]
    grid = [images, errors] if any(errors) else [images]
    return draw_views(grid, panel.percent, "|error|, % of the grey window")
