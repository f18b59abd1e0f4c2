"""Clean simulated slices, made once and kept in a cache file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mrisem.anatomy import brain, knee

ANATOMIES = {"brain": brain.Subject, "knee": knee.Subject}
# Seeds of subjects: far from those of `mrisem simulate`, so that no subject is on two sides.
FIRST_TRAIN, FIRST_HELD_OUT = 7_000_000, 8_000_000


def load_pool(entries: dict[str, Any], seed: int, folder: Path) -> dict[str, Tensor]:
    """Make the clean slices, or load them when the same ones were made before.

    Args:
        entries: the configuration's ``pool``.
        seed: shifts the subjects.
        folder: where the cache file lies.

    Returns:
        ``train``, ``held_out``: ``(n, y, x)`` float16 with maximum 1; ``held_out_is_knee``:
        ``(n,)`` bool.
    """
    file = folder / f"pool-{_key(entries, seed)}.pt"
    if file.is_file():
        return torch.load(file, weights_only=True)
    train = [_slices(name, entries, entries[f"n_{name}"], FIRST_TRAIN + seed) for name in ANATOMIES]
    held_out = [
        _slices(name, entries, entries[f"n_{name}_held_out"], FIRST_HELD_OUT + seed)
        for name in ANATOMIES
    ]
    is_knee = torch.cat([torch.full((len(part),), bool(k)) for k, part in enumerate(held_out)])
    pool = {
        "train": torch.cat(train),
        "held_out": torch.cat(held_out),
        "held_out_is_knee": is_knee,
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    torch.save(pool, partial)
    partial.replace(file)
    return pool


def _key(entries: dict[str, Any], seed: int) -> str:
    """Name the cache file by what it is made of, the anatomy's source included."""
    digest = hashlib.sha256(json.dumps([entries, seed], sort_keys=True).encode())
    for source in sorted(Path(brain.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _slices(name: str, entries: dict[str, Any], n_subjects: int, first_seed: int) -> Tensor:
    """Every contrast of random slices of ``n_subjects``, ``(n, y, x)`` float16."""
    slices = []
    for subject_seed in tqdm(range(first_seed, first_seed + n_subjects), desc=f"{name} subjects"):
        generator = torch.Generator().manual_seed(subject_seed)
        positions = (1.6 * torch.rand(entries["n_slices"], generator=generator) - 0.8).tolist()
        subject = ANATOMIES[name](subject_seed, entries["size"])
        for acquisition in subject.acquisitions:
            images = subject.images(acquisition, positions)
            slices.append((images / images.amax((-2, -1), keepdim=True)).half())
    return torch.cat(slices)
