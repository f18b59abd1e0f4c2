"""Where reconstructions stand among the bank: their embeddings in the plane, by PCA or UMAP.

Paper: Feng et al., arXiv:2511.19641, Figure 5.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mrisem.errors import InputError
from mrisem.report.figures import FAINT, INK, colours
from mrisem.results import embedding_files
from mrisem.results.embedding_files import Points, unit
from mrisem.results.run import Run

_FEWEST = 6  # bank entries that UMAP can lay out sensibly
_SEED = 0  # of the layout
_N_NEIGHBORS = 15
_PANEL = 3.4  # inches
_COLOUR = colours(("positives", "negatives", "zero-filled"))
Method = Literal["pca", "umap"]


@dataclass(frozen=True)
class Panel:
    """Points of one level in the plane."""

    title: str  # such as "level 13"
    method: str  # PCA or UMAP
    points: Points
    variance: float | None  # share that the plane of PCA holds; None of UMAP
    n_towards_positives: int  # of its paths, counted before the projection


@dataclass(frozen=True)
class Picture:
    """Embeddings of one run and acquisition."""

    label: str  # of the run
    acquisition: str  # fastMRI's name of the sequence
    panels: tuple[Panel, ...]  # one a level
    iterations: tuple[int, int]  # first and last of the paths
    n_scans: int  # slices whose paths were kept; the picture may show fewer


def make_pictures(runs: Iterable[Run], most_scans: int, method: Method = "pca") -> list[Picture]:
    """Lay out the embeddings of each run and acquisition.

    Args:
        runs: those without ``embeddings/`` give no picture.
        most_scans: slices drawn in a picture, spread evenly over those there are; 0: no pictures.
        method: how embeddings are laid out in the plane.

    Raises:
        InputError: an embedding file is damaged or of another bank than the others, or a bank is
            too small for UMAP.
    """
    pictures = []
    for run in runs if most_scans else ():
        for acquisition, files in embedding_files.kept_files(run).items():
            shown = [files[i] for i in embedding_files.evenly(len(files), most_scans)]
            scans = [embedding_files.read_kept(file) for file in shown]
            panels = []
            levels = [embedding_files.levels_of(*pair) for pair in zip(scans, shown, strict=True)]
            for level in levels[0]:
                points = embedding_files.points_of(level, scans, files[0].parents[1])
                title = f"level {level}" if level.isdigit() else level.replace("_", " ")
                panels.append(_panel(title, points, method))
            steps = np.concatenate([scan["iterations"] for scan in scans])
            ends = (int(steps.min()), int(steps.max()))
            pictures.append(Picture(run.label, acquisition, tuple(panels), ends, len(files)))
    return pictures


def _panel(title: str, points: Points, method: Method) -> Panel:
    n_towards = points.n_towards_positives
    if method == "umap":
        return Panel(title, "UMAP", umap(points), None, n_towards)
    return Panel(title, "PCA", *principal_plane(points), n_towards)


def missing_pictures(runs: Iterable[Run], drawn: set[str], most_scans: int) -> str:
    """Return which runs have no picture of their embeddings, and why; empty: all have one."""
    if not most_scans:
        return "Not drawn: embedding_slices=0."
    without = [run.label for run in runs if run.has_prior and run.label not in drawn]
    if without:
        return f"No embeddings were kept in {', '.join(without)}, though a prior guided them."
    return "" if drawn else "No embeddings were kept: no prior in these runs."


def principal_plane(points: Points) -> tuple[Points, float]:
    """Project one level's points onto their first two principal components.

    With the directions ``x_i`` (unit length, of bank, zero-filled images and paths together) and
    ``X = (x_i - mean x)_i = U S V^T`` the places are ``(X V)_i`` in the first two components: a
    linear map, so that no two points lie farther apart than in the encoder's space.

    Args:
        points: finite points of the encoder's space; only their directions count.

    Returns:
        the points in the plane, and the share ``(s_1^2 + s_2^2) / sum s^2`` of their variance that
        it holds (0 where all are equal).
    """
    directions = unit(np.concatenate(points.parts)).astype(np.float64)
    centred = directions - directions.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    flat = np.zeros((len(centred), 2), dtype=np.float32)
    flat[:, : len(values)] = (left * values)[:, :2]
    variance = float((values[:2] ** 2).sum() / max((values**2).sum(), np.finfo(float).tiny))
    return points.moved_to(flat), variance


def umap(points: Points) -> Points:
    """Lay one level's points out in two dimensions by UMAP (McInnes et al., arXiv:1802.03426).

    Under the cosine metric it is fitted on the bank alone, from its principal plane, so that its
    layout at large follows the data. Zero-filled images and paths are no part of the fit: steps of
    one path are each other's nearest neighbours, and fitted together they stay where they began,
    apart from the positives, even when they move in among them. They are placed afterwards, see
    `place`.

    Args:
        points: finite points of the encoder's space; only their directions count.

    Raises:
        InputError: the bank has fewer than 6 entries.
    """
    directions = unit(np.concatenate(points.parts))
    n_bank = len(points.positives) + len(points.negatives)
    if n_bank < _FEWEST:
        raise InputError(
            f"UMAP needs a bank of {_FEWEST} entries or more, got {n_bank}; set embedding=pca"
        )
    bank, others = directions[:n_bank], directions[n_bank:]
    none = others[:0]
    start, _ = principal_plane(Points(bank, none, none, ()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba and of parts of umap that are not used
        try:
            from umap import UMAP  # compiles itself for half a minute
        except ImportError as error:
            raise InputError(
                f"embedding=umap needs the package umap-learn ({error}); pip install "
                "'mrisem[umap]', or set embedding=pca"
            ) from error
        layout = UMAP(
            n_neighbors=min(_N_NEIGHBORS, n_bank - 1),
            metric="cosine",
            init=start.positives,
            random_state=_SEED,
            n_jobs=1,
        )
        flat = np.asarray(layout.fit_transform(bank), dtype=np.float32)
    return points.moved_to(np.concatenate([flat, place(others, bank, flat)]))


def place(others: np.ndarray, bank: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Put directions at the weighted mean position of their nearest bank entries.

    They are 15, of a small bank a quarter, at least 2, with weights
    ``exp(-(d - d_1) / mean(d - d_1))`` of cosine distances ``d``, ``d_1`` the nearest: where UMAP's
    own transform starts from, but for how it sets the scale. Its later steps are left out: they
    scatter the places of neighbouring steps at random.

    Args:
        others: ``(n, feature)`` float32, unit length.
        bank: ``(n_bank, feature)`` float32, unit length.
        flat: ``(n_bank, 2)``, the bank in the plane.

    Returns:
        ``(n, 2)`` float32, never outside the bank's hull.
    """
    distances = 1 - others.astype(np.float64) @ bank.T.astype(np.float64)
    n_placing = min(_N_NEIGHBORS, max(2, len(bank) // 4))
    nearest = np.argsort(distances, axis=1)[:, :n_placing]
    beyond = np.take_along_axis(distances, nearest, 1)
    beyond -= beyond[:, :1]
    weights = np.exp(-beyond / np.maximum(beyond.mean(1, keepdims=True), 1e-9))
    weights /= weights.sum(1, keepdims=True)
    placed = (weights[..., None] * flat[nearest]).sum(1)
    return np.asarray(placed, dtype=np.float32)


def draw(picture: Picture) -> Figure:
    """Draw bank, zero-filled images and paths, with a panel for each level."""
    n = len(picture.panels)
    figure = Figure(figsize=(_PANEL * n, _PANEL + 0.5), layout="constrained")
    for axes, panel in zip(figure.subplots(1, n, squeeze=False)[0], picture.panels, strict=True):
        axes.set(xticks=[], yticks=[])  # only distances mean something, and only those of PCA
        if panel.method == "PCA":
            axes.set_aspect("equal", adjustable="datalim")
        axes.set_title(f"{panel.title} ({panel.method})", fontsize=10)
        _draw(axes, panel.points)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    look: dict[str, Any] = {"ncols": len(labels) if n > 1 else 2, "fontsize": 8, "frameon": False}
    figure.legend(handles, labels, loc="outside lower center", **look)
    return figure


def _draw(axes: Axes, points: Points) -> None:
    size = 16 if sum(map(len, points.parts)) < 400 else 6
    for label, side in (("positives", points.positives), ("negatives", points.negatives)):
        look: dict[str, Any] = {"alpha": 0.55, "linewidths": 0, "color": _COLOUR[label]}
        axes.scatter(side[:, 0], side[:, 1], s=size, label=label, **look)
    crossed: dict[str, Any] = {"marker": "x", "linewidths": 1.6, "zorder": 6, "s": 44}
    colour = _COLOUR["zero-filled"]
    x, y = points.zero_filled.T
    axes.scatter(x, y, color=colour, label="zero-filled", **crossed)
    strengthening = LinearSegmentedColormap.from_list("path", [FAINT, INK])
    for path in points.paths:
        shades = strengthening(np.linspace(0, 1, len(path)))
        steps = list(np.stack([path[:-1], path[1:]], axis=1))  # (step, end, 2)
        axes.scatter(path[:, 0], path[:, 1], s=7, color=shades, zorder=3)
        axes.add_collection(LineCollection(steps, colors=shades[1:], linewidths=1.4, zorder=3))
    ends = np.array([path[-1] for path in points.paths if len(path)]).reshape(-1, 2)
    around: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.8, "zorder": 5}
    axes.plot([], [], color=strengthening(0.6), linewidth=1.4, label="reconstruction's path")
    axes.scatter(ends[:, 0], ends[:, 1], s=34, color=INK, label="its end", **around)
