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

_FEWEST = 6  # bank entries that UMAP can lay out sensibly
_N_NEIGHBORS = 15


@dataclass(frozen=True)
class Panel:
    """One level in the plane.

    Args:
        level: as written beside the reconstructions: a layer's number or a name.
        method: ``UMAP`` or, of a bank of fewer than 6 entries, ``PCA``.
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
        n_bank = len(first.positives) + len(first.negatives)
        shown = _counted(n, "slice") if n == self.n_scans else f"{n} of {self.n_scans} slices"
        moved = ", ".join(f"{p.title} {p.n_towards_positives} of {n}" for p in self.panels)
        plane = (
            "The bank is laid out by UMAP (cosine, fixed seed); images and paths are placed "
            f"afterwards, each step at the weighted mean of its {n_placing(n_bank)} nearest bank "
            "entries, so that even what resembles none of them lands among them. UMAP keeps "
            "neighbours; its distances, directions and sizes of clusters are not metric."
        )
        if few:
            plane = f"PCA to two dimensions: a bank below {_FEWEST} entries is too small for UMAP."
        return (
            f"{len(first.positives)} positives and {len(first.negatives)} negatives of the bank, "
            f"the zero-filled images of {shown} (crosses) and their reconstructions' paths from "
            f"iteration {self.iterations[0]} to {self.iterations[1]}, faint to strong, a large "
            f"dot at the end. {plane} In the encoder's own space, paths that end more like the "
            f"positives, against the negatives, than they began (cosine of means): {moved}."
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


def lay_out(points: Points, seed: int = 0) -> tuple[Points, str]:
    """Lay one level's points out in two dimensions.

    UMAP (McInnes et al., arXiv:1802.03426) under the cosine metric is fitted on the bank alone,
    from its PCA, so that its layout at large follows the data. Zero-filled images and paths are no
    part of the fit: steps of one path are each other's nearest neighbours, and fitted together they
    stay where they began, apart from the positives, even when they move in among them. They are
    placed afterwards, see `place`. A bank of fewer than 6 entries is too small for UMAP: then it is
    the PCA of all points together.

    Args:
        points: in the encoder's space, finite; only their directions count.
        seed: of UMAP's optimisation.

    Returns:
        the points in the plane, and ``UMAP`` or ``PCA``.
    """
    directions = unit(points.stacked)
    n_bank = len(points.positives) + len(points.negatives)
    if n_bank < _FEWEST:
        return points.moved_to(_principal(directions)), "PCA"
    bank, others = directions[:n_bank], directions[n_bank:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba and of parts of umap that are not used
        from umap import UMAP

        layout = UMAP(
            n_neighbors=min(_N_NEIGHBORS, n_bank - 1),
            metric="cosine",
            init=_principal(bank),
            random_state=seed,
            n_jobs=1,
        )
        flat = np.asarray(layout.fit_transform(bank), dtype=np.float32)
    return points.moved_to(np.concatenate([flat, place(others, bank, flat)])), "UMAP"


def place(others: np.ndarray, bank: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Place directions at the weighted mean of their nearest bank entries' places.

    Weights ``exp(-(d - d_1) / mean(d - d_1))`` of cosine distances ``d``, ``d_1`` the nearest:
    where UMAP's own transform starts from, but for how it sets the scale. Its later steps are left
    out: they scatter the places of neighbouring steps at random.

    Args:
        others: ``(n, feature)`` float32, unit length.
        bank: ``(n_bank, feature)`` float32, unit length.
        flat: ``(n_bank, 2)``, the bank in the plane.

    Returns:
        ``(n, 2)`` float32, never outside the bank's hull.
    """
    distances = 1 - others.astype(np.float64) @ bank.T.astype(np.float64)
    nearest = np.argsort(distances, axis=1)[:, : n_placing(len(bank))]
    beyond = np.take_along_axis(distances, nearest, 1)
    beyond -= beyond[:, :1]
    scale = np.maximum(beyond.mean(1, keepdims=True), 1e-9)
    weights = np.exp(-beyond / scale)
    weights /= weights.sum(1, keepdims=True)
    placed = (weights[..., None] * flat[nearest]).sum(1)
    return np.asarray(placed, dtype=np.float32)


def n_placing(n_bank: int) -> int:
    """Return how many nearest entries place a point: 15, of a small bank a quarter, at least 2."""
    return min(_N_NEIGHBORS, max(2, n_bank // 4))


def _panel(level: str, points: Points, seed: int) -> Panel:
    flat, method = lay_out(points, seed)
    return Panel(level, method, flat, points.n_towards_positives)


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
