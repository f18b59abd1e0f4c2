"""How far do reconstructions differ that equivalent wordings of one prompt have guided?"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from matplotlib.figure import Figure

from mrisem.results.runs import find_runs

LIMIT = 0.02  # of the maximum (method: Feng et al., arXiv:2511.19641, claims)


def deviation(images: np.ndarray) -> np.ndarray:
    """Standard deviation over wordings of each pixel, as a share of the mean image's maximum.

    Args:
        images: ``(wording, y, x)``.

    Returns:
        ``(y, x)``.

    >>> deviation(np.array([[[1.0, 4.0]], [[3.0, 4.0]]]))
    array([[0.25, 0.  ]])
    """
    return images.std(0) / images.mean(0).max()


def analyse(folder: Path) -> dict[str, Any]:
    """Standard deviation over wordings: mean over pixels and largest, of each slice; a map of each.

    Raises:
        ValueError: when a slice lacks a wording.
    """
    stacks: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)
    wordings = set()
    for run in find_runs([folder / "runs"]):
        if not run.has_prior:
            continue
        wordings.add(run.settings.get("prompt.wording"))
        for file in run.files:
            with h5py.File(file) as content:
                for number, image in zip(content["slices"], content["reconstruction"], strict=True):
                    stacks[file.name, int(number)].append(image)
    if any(len(stack) != len(wordings) for stack in stacks.values()):
        raise ValueError(f"a slice lacks one of the wordings {sorted(wordings)}; run again")
    maps = {key: deviation(np.stack(stack)) for key, stack in sorted(stacks.items())}
    draw(maps, folder / "deviation.png")
    means = [float(one.mean()) for one in maps.values()]
    return {
        "wordings": len(wordings),
        "slices": len(maps),
        "mean over pixels": float(np.mean(means)),
        "largest mean of a slice": max(means),
        "largest pixel": max(float(one.max()) for one in maps.values()),
        "slices whose mean is below .02": sum(mean < LIMIT for mean in means),
        "slices whose every pixel is below .02": sum(
            bool((m < LIMIT).all()) for m in maps.values()
        ),
    }


def draw(maps: dict[tuple[str, int], np.ndarray], path: Path) -> None:
    """Draw the maps side by side in one window."""
    columns = min(4, len(maps))
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(3 * columns, 3.2 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, ((file, number), one) in zip(axes, maps.items(), strict=False):
        shown = axis.imshow(one, vmin=0, vmax=LIMIT, cmap="magma")
        axis.set_title(f"{file.removesuffix('.h5')} [{number}]", fontsize=7)
    figure.colorbar(shown, ax=axes, label="standard deviation / maximum", shrink=0.6)
    figure.savefig(path, dpi=110)


def outcome(own: dict[str, Any]) -> str:
    """One line for the table of claims."""
    return (
        f"mean pixel-wise std {own['mean over pixels']:.2g}, largest pixel "
        f"{own['largest pixel']:.2g}, {own['slices']} slices, {own['wordings']} wordings"
    )
