"""Reconstructions by real methods beside their targets, as `material.sh` left them."""

from __future__ import annotations

from pathlib import Path

import h5py
import torch
from pairs import KINDS, Pairs, compare
from pool import CONTRASTS
from torch import Tensor
from tqdm import tqdm

from mrisem.report.runs import Run, find_runs

HELD_OUT = 4  # the subjects whose number is a multiple of it are not trained on


def load_material(folder: Path, rounds: list[int], size: int) -> dict[str, Pairs]:
    """Read all reconstructions of the rounds.

    Args:
        folder: of the experiment.
        rounds: which; an empty list gives nothing.
        size: matrix size that images must have.

    Returns:
        ``train`` and ``held_out``, images and targets with maximum 1.

    Raises:
        SystemExit: when a round was not made.
    """
    found: dict[str, list[tuple[Tensor, Tensor, int, int]]] = {"train": [], "held_out": []}
    for number in rounds:
        root = folder / "material" / f"round{number}"
        if not root.is_dir():
            raise SystemExit(f"{root} is missing: run material.sh {folder} {number}, or set rounds")
        for run in tqdm(find_runs([root]), desc=f"material of round {number}"):
            for side, rows in _read(run, size).items():
                found[side] += rows
    return {side: _pairs(rows) for side, rows in found.items() if rows}


def _read(run: Run, size: int) -> dict[str, list[tuple[Tensor, Tensor, int, int]]]:
    """Rows (image, target, kind, contrast) of a run."""
    kind = KINDS.index("aliasing" if run.method == "zero_filled" else "reconstruction")
    targets = Path(run.config["data"]["root"]) / "multicoil_val"
    rows: dict[str, list[tuple[Tensor, Tensor, int, int]]] = {"train": [], "held_out": []}
    for path in run.files:
        side = "train" if int(path.stem.rsplit("_", 1)[1]) % HELD_OUT else "held_out"
        with h5py.File(path) as file, h5py.File(targets / path.name) as source:
            images = torch.from_numpy(file["reconstruction"][:])
            chosen = torch.from_numpy(source["reconstruction_rss"][:])[file["slices"][:].tolist()]
            contrast = CONTRASTS.index(source.attrs["acquisition"])
        if images.shape[-2:] != (size, size):
            raise SystemExit(f"{path} must hold images of {size} pixels, got {images.shape[-2:]}")
        rows[side] += [(i, t, kind, contrast) for i, t in zip(images, chosen, strict=True)]
    return rows


def _pairs(rows: list[tuple[Tensor, Tensor, int, int]]) -> Pairs:
    images, targets = (torch.stack([r[k] for r in rows]).float() for k in (0, 1))
    images, targets = (x / x.amax((-2, -1), keepdim=True) for x in (images, targets))
    kind, contrast = (torch.tensor([r[k] for r in rows]) for k in (2, 3))
    return compare(images, targets, kind, contrast, torch.full_like(kind, -1))
