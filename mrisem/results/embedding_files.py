"""Embeddings written by `mrisem reconstruct`: of bank, zero-filled images and steps of the fit."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrisem.errors import InputError
from mrisem.files import reading
from mrisem.results.hdf5 import open_hdf5, text_of
from mrisem.results.inside import inside
from mrisem.results.reading import scan_of
from mrisem.results.run import Run

_MAX_STEPS = 16  # steps of a path in a figure; more could not be told apart


@dataclass(frozen=True)
class Points:
    """Points of one level, in the encoder's space or in the plane of a figure.

    Args:
        positives: ``(n, feature)`` float32, positive entries of the bank.
        negatives: ``(n, feature)`` float32, negative entries of the bank.
        zero_filled: ``(scan, feature)`` float32, zero-filled images of the scans.
        paths: ``(step, feature)`` float32 for each scan, steps of its fit from first to last.
    """

    positives: np.ndarray
    negatives: np.ndarray
    zero_filled: np.ndarray
    paths: tuple[np.ndarray, ...]

    @property
    def parts(self) -> list[np.ndarray]:
        """All arrays, in the order of the arguments."""
        return [self.positives, self.negatives, self.zero_filled, *self.paths]

    def moved_to(self, stacked: np.ndarray) -> "Points":
        """Return the same points at other coordinates, ``(n, 2)`` in the order of `parts`."""
        ends = np.cumsum([len(part) for part in self.parts])[:-1]
        positives, negatives, zero_filled, *paths = np.split(stacked, ends)
        return Points(positives, negatives, zero_filled, tuple(paths))

    @property
    def n_towards_positives(self) -> int:
        """Number of paths whose last step is more similar to the positives than their first.

        Similarity to the positives counts minus that to the negatives.
        """
        positive, negative = (unit(side).mean(0) for side in (self.positives, self.negatives))
        # cosine similarity to each side's mean direction
        margins = [unit(path) @ (unit(positive) - unit(negative)) for path in self.paths]
        return sum(bool(margin[-1] > margin[0]) for margin in margins if len(margin))


def kept_files(run: Run) -> dict[str, list[Path]]:
    """Return the embedding files of a run by acquisition, with the slices of a volume in order."""
    files: dict[str, list[Path]] = {}
    for file in run.files:
        with open_hdf5(file) as content:
            scan, acquisition = scan_of(content, file), text_of(content, "acquisition")
        folder = inside(run.folder, f"embeddings/{scan.file if scan else file.name}")
        names = sorted((path.name for path in folder.glob("*.npz")), key=_natural)
        if slices := [inside(folder, name) for name in names if not name.startswith(".")]:
            files.setdefault(acquisition, []).extend(slices)
    return files


def read_kept(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of one slice.

    Raises:
        InputError: when the file is damaged.
    """
    fix = "remove it, or reconstruct again with skip_existing=false"
    with (
        reading(path, "a complete .npz of embeddings", fix),
        path.open("rb") as stream,
        np.load(stream, allow_pickle=False) as file,
    ):
        arrays = dict(file)
        for name, array in arrays.items():
            if array.dtype.kind not in "iuf" or 0 in array.shape:
                raise ValueError(f"{name} must hold numbers, got {array.dtype} {array.shape}")
        return arrays


def levels_of(arrays: dict[str, np.ndarray], path: Path) -> list[str]:
    """Return the levels of the arrays of one slice, by number.

    Raises:
        InputError: when there are none.
    """
    levels = [key.removeprefix("path_") for key in arrays if key.startswith("path_")]
    iterations = arrays.get("iterations")
    if not levels or iterations is None or iterations.dtype.kind not in "iu":
        raise InputError(
            f"an embedding file must have iterations and path_<level>, got {sorted(arrays)} in "
            f"{path}; reconstruct again with skip_existing=false"
        )
    return sorted(levels, key=_natural)


def _natural(text: str) -> tuple[str | int, ...]:
    """Sort key of names with numbers: 2 before 10."""
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text))


def evenly(n: int, most: int) -> list[int]:
    """Return at most ``most`` of ``n`` indices, evenly spread, the first and the last among them.

    >>> evenly(9, 3), evenly(2, 3)
    ([0, 4, 8], [0, 1])
    """
    places: list[int] = np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist()
    return places


def points_of(level: str, scans: Sequence[dict[str, np.ndarray]], folder: Path) -> Points:
    """Gather one level of several scans, which share one bank; long paths are thinned.

    Steps that are not finite (a fit that diverged) are left out.
    """
    sides = [f"positives_{level}", f"negatives_{level}"]
    zero_filled, path = f"zero_filled_{level}", f"path_{level}"
    ranks = dict.fromkeys(sides, 2) | {zero_filled: 1, path: 2}
    first = scans[0]
    for scan in scans:
        if not (
            all(key in scan and scan[key].ndim == rank for key, rank in ranks.items())
            and all(np.array_equal(scan[side], first[side]) for side in sides)
            and len({scan[key].shape[-1] for key in ranks}) == 1
            and all(np.isfinite(scan[key]).all() for key in (*sides, zero_filled))
        ):
            raise InputError(
                f"embeddings of one run must be finite and of one bank, with arrays {sorted(ranks)}"
                f", got others in {folder}; reconstruct again with skip_existing=false"
            )
    finite = [scan[path][np.isfinite(scan[path]).all(1)] for scan in scans]
    thinned = tuple(steps[evenly(len(steps), _MAX_STEPS)] for steps in finite)
    positives, negatives = (first[side] for side in sides)
    return Points(positives, negatives, np.stack([s[zero_filled] for s in scans]), thinned)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return ``(..., feature)`` vectors scaled to length 1, float32."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norm, np.finfo(np.float32).tiny), dtype=np.float32)
