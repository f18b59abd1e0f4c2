"""Reconstructions by real methods beside their targets, as `material.sh` left them."""

from __future__ import annotations

from pathlib import Path

import h5py
import torch
from pairs import KINDS, Pairs, compare
from pool import CONTRASTS
from torch import Tensor
from tqdm import tqdm

from mrisem.results.runs import Run, find_runs

HELD_OUT = 4  # the subjects whose number is a multiple of it are not trained on
Row = tuple[Tensor, Tensor, Tensor, int, int]  # image, target, target without noise, kind, contrast


def load_material(folder: Path, rounds: list[int], size: int) -> dict[str, Pairs]:
    """Read all reconstructions of the rounds.

    Args:
        folder: of the experiment.
        rounds: which; an empty list gives nothing.
        size: matrix size that images must have.

    Returns:
        ``train`` and ``held_out``; images, targets and noise-free targets with maximum 1.

    Raises:
        SystemExit: when a round, or what to judge it by, was not made.
    """
    found: dict[str, list[Row]] = {"train": [], "held_out": []}
    for number in rounds:
        root = folder / "material" / f"round{number}"
        if not root.is_dir():
            raise SystemExit(f"{root} is missing: run material.sh {folder} {number}, or set rounds")
        for run in tqdm(find_runs([root]), desc=f"material of round {number}"):
            for side, rows in _read(run, size).items():
                found[side] += rows
    return {side: _pairs(rows) for side, rows in found.items() if rows}


def _read(run: Run, size: int) -> dict[str, list[Row]]:
    """Rows of a run."""
    kind = KINDS.index("aliasing" if run.record.model == "zero_filled" else "reconstruction")
    root = Path(run.data["root"])
    noise_free = root.parents[1] / "noise_free" / root.name
    if not noise_free.is_dir():
        raise SystemExit(f"{noise_free} is missing: run material.sh again, it adds what is missing")
    rows: dict[str, list[Row]] = {"train": [], "held_out": []}
    for path in run.files:
        side = "train" if int(path.stem.rsplit("_", 1)[1]) % HELD_OUT else "held_out"
        with h5py.File(path) as file:
            images, slices = torch.from_numpy(file["reconstruction"][:]), file["slices"][:].tolist()
        target, contrast = _target(root, path.name, slices)
        ideal, _ = _target(noise_free, path.name, slices)
        if images.shape[-2:] != (size, size):
            raise SystemExit(f"{path} must hold images of {size} pixels, got {images.shape[-2:]}")
        rows[side] += [
            (*three, kind, contrast) for three in zip(images, target, ideal, strict=True)
        ]
    return rows


def _target(root: Path, name: str, slices: list[int]) -> tuple[Tensor, int]:
    """Slices of a file's target, and its contrast."""
    with h5py.File(root / "multicoil_val" / name) as file:
        target = torch.from_numpy(file["reconstruction_rss"][:])[slices]
        return target, CONTRASTS.index(file.attrs["acquisition"])


def _pairs(rows: list[Row]) -> Pairs:
    image, target, ideal = (torch.stack([r[k] for r in rows]).float() for k in range(3))
    image, target, ideal = (x / x.amax((-2, -1), keepdim=True) for x in (image, target, ideal))
    kind, contrast = (torch.tensor([r[k] for r in rows]) for k in (3, 4))
    return compare(image, target, ideal, kind, contrast, torch.full_like(kind, -1))
