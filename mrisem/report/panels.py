"""Image comparisons: which slices to show, and their images and error maps at stated windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrisem.report.summary import Row, labels_of

_MOST_PANELS = 4  # for each comparable group
_GREY_PERCENTILE = 99.5  # a few very bright pixels must not darken the image


@dataclass(frozen=True)
class Tile:
    """One method's image.

    Args:
        label: the method, or ``target``.
        image: ``(y, x)`` magnitude in the file's units.
        error: ``(y, x)`` absolute difference to the target, or None without a target.
        row: the slice's scores; None for the target.
    """

    label: str
    image: np.ndarray
    error: np.ndarray | None
    row: Row | None


@dataclass(frozen=True)
class Panel:
    """One slice through all methods.

    Args:
        file: the input file's name.
        slice: index in that file.
        acquisition: fastMRI's name of the sequence.
        grey: upper end of the grey window, in the file's units.
        error_window: upper end of the error maps, as a share of ``grey``.
        tiles: the target first, when it was found.
        note: what is missing, for the reader; or an empty string.
    """

    file: str
    slice: int
    acquisition: str
    grey: float
    error_window: float
    tiles: tuple[Tile, ...]
    note: str = ""


def choose_slices(rows: Sequence[Row], most: int = _MOST_PANELS) -> list[tuple[str, int]]:
    """Choose representative slices: per acquisition files of middling PSNR, their middle slice.

    Only slices that every method reconstructed, unless there are none; one or two files for each
    acquisition, so that about ``most`` slices are shown.
    """
    labels = labels_of(rows)
    methods: dict[tuple[str, int], set[str]] = {}
    for row in rows:
        methods.setdefault((row["file"], row["slice"]), set()).add(row["method"])
    shared = {key for key, found in methods.items() if len(found) == len(labels)} or set(methods)
    acquisitions = sorted({row["acquisition"] for row in rows})
    each = min(2, max(1, most // len(acquisitions)))
    chosen = []
    for acquisition in acquisitions[:most]:
        mine = [r for r in rows if r["acquisition"] == acquisition]
        keys = {(r["file"], r["slice"]) for r in mine} & shared
        for file in _middling_files([r for r in mine if r["method"] == labels[-1]], keys)[:each]:
            slices = sorted(number for name, number in keys if name == file)
            chosen.append((file, slices[len(slices) // 2]))
    return chosen


def _middling_files(rows: Sequence[Row], keys: set[tuple[str, int]]) -> list[str]:
    """Return the files by how close their mean PSNR lies to the median of all."""
    files = sorted({name for name, _ in keys})
    means = {
        file: float(np.mean([r.get("psnr", 0.0) for r in rows if r["file"] == file] or [0.0]))
        for file in files
    }
    median = float(np.median(list(means.values()))) if means else 0.0
    return sorted(files, key=lambda file: (abs(means[file] - median), file))


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
    mine = [row for row in rows if (row["file"], row["slice"]) == key]
    mine.sort(key=lambda row: labels_of(rows).index(row["method"]))
    target = next(filter(None, (_target(Path(r["run"]), key, targets) for r in mine)), None)
    truth = None if target is None else target.image
    tiles = [tile for row in mine if (tile := _method_tile(row, key, truth)) is not None]
    shown = tiles if target is None else [target, *tiles]
    grey = float(np.percentile(shown[0].image, _GREY_PERCENTILE)) if shown else 1.0
    notes = []
    if target is None:
        notes.append("The target file was not found where it was evaluated: no error maps.")
    if len(tiles) < len(mine):
        notes.append("Some reconstruction files were moved or removed since: their images miss.")
    return Panel(
        file=key[0],
        slice=key[1],
        acquisition=mine[0]["acquisition"],
        grey=grey or 1.0,
        error_window=error_window,
        tiles=tuple(shown),
        note=" ".join(notes),
    )


def _target(run: Path, key: tuple[str, int], targets: Mapping[Path, Path]) -> Tile | None:
    if run not in targets:
        return None
    image = _read_slice(targets[run] / key[0], "reconstruction_rss", key[1])
    return None if image is None else Tile("target", image, None, None)


def _method_tile(row: Row, key: tuple[str, int], truth: np.ndarray | None) -> Tile | None:
    file = Path(row["run"]) / "reconstructions" / key[0]
    image = _read_slice(file, "reconstruction", key[1])
    if image is None:
        return None
    fits = truth is not None and truth.shape == image.shape
    return Tile(row["method"], image, np.abs(image - truth) if fits else None, row)


def _read_slice(file: Path, dataset: str, number: int) -> np.ndarray | None:
    """Return one slice by its index in the input file, or None when file or slice are not there."""
    if not file.is_file():
        return None
    with h5py.File(file) as content:
        if dataset not in content:
            return None
        slices = content["slices"][()] if "slices" in content else np.arange(len(content[dataset]))
        position = np.flatnonzero(slices == number)
        if position.size == 0:
            return None
        image: Any = content[dataset][int(position[0])]
        return np.asarray(image, dtype=np.float32)
