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
CONTRASTS = (*brain.Subject.acquisitions, *knee.Subject.acquisitions)
N_BRAIN = len(brain.Subject.acquisitions)  # the first contrasts are the brain's
# Seeds of subjects: far from those of `mrisem simulate`, so that no subject is on two sides.
FIRST_SEED, PER_SIZE = {"train": 7_000_000, "held_out": 8_000_000}, 10_000
# Matrix size -> images ``(n, y, x)`` float16 with maximum 1, and contrasts ``(n,)``.
Pool = dict[int, tuple[Tensor, Tensor]]


def load_pool(entries: dict[str, Any], seed: int, folder: Path) -> dict[str, Pool]:
    """Make the clean slices, or load them when the same ones were made before.

    Args:
        entries: the configuration's ``pool``.
        seed: shifts the subjects.
        folder: where the cache file lies.

    Returns:
        ``train`` and ``held_out``.
    """
    digest = hashlib.sha256(json.dumps([entries, seed], sort_keys=True).encode())
    for source in (*sorted(Path(brain.__file__).parent.glob("*.py")), Path(__file__)):
        digest.update(source.read_bytes())
    file = folder / f"pool-{digest.hexdigest()[:12]}.pt"
    if not file.is_file():
        made = {side: _make(entries, side, seed) for side in FIRST_SEED}
        partial = file.with_suffix(".part")
        torch.save(made, partial)
        partial.replace(file)
    return torch.load(file, weights_only=True)


def _make(entries: dict[str, Any], side: str, seed: int) -> Pool:
    pool = {}
    for index, size in enumerate(entries["sizes"]):
        images, contrasts = [], []
        first = FIRST_SEED[side] + seed + index * PER_SIZE
        for name, subject_class in ANATOMIES.items():
            seeds = range(first, first + entries[side][name])
            for one in tqdm(seeds, desc=f"{side}: {name} subjects, {size} pixels"):
                generator = torch.Generator().manual_seed(one)
                shares = torch.rand(entries["n_slices"], generator=generator)
                subject = subject_class(one, size)
                for acquisition in subject.acquisitions:
                    image = subject.images(acquisition, (1.6 * shares - 0.8).tolist())
                    images.append((image / image.amax((-2, -1), keepdim=True)).half())
                    contrasts += [CONTRASTS.index(acquisition)] * len(image)
        pool[size] = torch.cat(images), torch.tensor(contrasts)
    return pool
