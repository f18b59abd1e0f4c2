"""Where reconstructions stand among the bank: the points of the UMAP picture.

Paper: Feng et al., arXiv:2511.19641, Figure 5.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mrisem.report.embedding_files import (
    Points,
    kept_files,
    levels_of,
    points_of,
    read_kept,
    spread,
    unit,
)
from mrisem.report.runs import Run

_FEWEST = 6  # points that UMAP can lay out sensibly
_N_NEIGHBORS = 15


@dataclass(frozen=True)
class Panel:
    """One level in the plane.

    Args:
        level: as written beside the reconstructions: a layer's number or a name.
        method: ``UMAP`` or, of fewer than 6 points, ``PCA``.
        points: in the plane.
        n_towards_positives: of its paths, counted before the projection.
    """

    level: str
    method: str
    points: Points
    n_towards_positives: int

    @property
    def title(self) -> str:
        """Such as ``level 13``."""
        return f"level {self.level}" if self.level.isdigit() else self.level.replace("_", " ")


@dataclass(frozen=True)
class Picture:
    """One run and acquisition.

    Args:
        label: of the run.
        acquisition: fastMRI's name of the sequence.
        panels: one a level.
        iterations: first and last of the paths.
        n_scans: slices whose paths were kept; the picture may show fewer.
    """

    label: str
    acquisition: str
    panels: tuple[Panel, ...]
    iterations: tuple[int, int]
    n_scans: int

    @property
    def caption(self) -> str:
        """What is shown, how it came into the plane, and what it must not be read for."""
        first = self.panels[0].points
        n, few = len(first.paths), [panel for panel in self.panels if panel.method == "PCA"]
        shown = _counted(n, "slice") if n == self.n_scans else f"{n} of {self.n_scans} slices"
        moved = ", ".join(f"{p.title} {p.n_towards_positives} of {n}" for p in self.panels)
        plane = (
            "UMAP (cosine, fixed seed) of all points together: it keeps neighbours, but distances, "
            "directions and sizes of clusters in the plane are not metric."
        )
        if few:
            plane = f"PCA to two dimensions, as fewer than {_FEWEST} points are too few for UMAP."
        return (
            f"{len(first.positives)} positives and {len(first.negatives)} negatives of the bank, "
            f"the zero-filled images of {shown} (crosses) and their reconstructions' paths from "
            f"iteration {self.iterations[0]} to {self.iterations[1]}, faint to strong, a dot at "
            f"the end. {plane} In the encoder's own space, ended more like the positives against "
            f"the negatives (cosine of the means) than they began: {moved}."
        )


def make_pictures(runs: Iterable[Run], most_scans: int, seed: int = 0) -> list[Picture]:
    """Lay out the embeddings of each run and acquisition.

    Args:
        runs: those without ``embeddings/`` give no picture.
        most_scans: slices drawn in a picture, spread evenly over those there are; 0: no pictures.
        seed: of the layout.

    Raises:
        InputError: an embedding file is damaged or of another bank than the others.
    """
    pictures = []
    for run in runs if most_scans else ():
        for acquisition, files in kept_files(run).items():
            found = [read_kept(file) for file in spread(files, most_scans)]
            panels = tuple(
                _panel(level, points_of(level, found, files[0].parents[1]), seed)
                for level in levels_of(found[0], files[0])
            )
            iterations = np.concatenate([one["iterations"] for one in found])
            ends = (int(iterations.min()), int(iterations.max()))
            pictures.append(Picture(run.label, acquisition, panels, ends, len(files)))
    return pictures


def in_plane(points: np.ndarray, seed: int = 0) -> tuple[np.ndarray, str]:
    """Lay points out in two dimensions.

    UMAP (McInnes et al., arXiv:1802.03426) under the cosine metric, fitted on all points together,
    paths included: a reconstruction that resembles nothing in the bank must stand apart, which it
    could not if it were only placed among the bank's points afterwards. It starts from the PCA, so
    that the layout at large follows the data and not chance.

    Args:
        points: ``(n, feature)`` float32, finite.
        seed: of UMAP's optimisation.

    Returns:
        ``(n, 2)`` float32, and ``UMAP`` or ``PCA``.
    """
    directions = unit(points)
    start = _principal(directions)
    if len(points) < _FEWEST:
        return start, "PCA"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba and of parts of umap that are not used
        from umap import UMAP

        layout = UMAP(
            n_neighbors=min(_N_NEIGHBORS, len(points) - 1),
            metric="cosine",
            init=start,
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(layout.fit_transform(directions), dtype=np.float32), "UMAP"


def _panel(level: str, points: Points, seed: int) -> Panel:
    flat, method = in_plane(points.stacked, seed)
    return Panel(level, method, points.moved_to(flat), points.n_towards_positives)


def _principal(points: np.ndarray) -> np.ndarray:
    """Return the two principal coordinates, ``(n, 2)`` float32; zeros where there is no second."""
    centred = np.asarray(points - points.mean(0), dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    coordinates = np.zeros((len(points), 2), dtype=np.float32)
    found = centred @ axes[:, ::-1][:, :2]
    coordinates[:, : found.shape[1]] = found
    return coordinates


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
