"""Clean slices by their matrix size, and simulated ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mrisem.anatomy import brain, knee
from mrisem.progress import track

ANATOMIES: dict[str, Any] = {"brain": brain.Subject, "knee": knee.Subject}
CONTRASTS = (*brain.Subject.acquisitions, *knee.Subject.acquisitions)
N_BRAIN = len(brain.Subject.acquisitions)  # the first contrasts are the brain's
# Seeds of subjects: far from those of `mrisem simulate`, so that no subject is on two sides.
FIRST_SEED, PER_SIZE = {"train": 7_000_000, "held_out": 8_000_000}, 10_000
# Matrix size -> images ``(n, y, x)`` float16 with maximum 1, and contrasts ``(n,)``.
Pool = dict[int, tuple[Tensor, Tensor]]


def simulate(entries: dict[str, Any], side: str, seed: int) -> Pool:
    """Simulate clean slices of subjects that nothing else simulates.

    Args:
        entries: ``sizes`` in pixels, ``n_slices`` of a subject, and for the side the number of
            subjects of each anatomy.
        side: ``train`` or ``held_out``.
        seed: shifts the subjects.
    """
    pool = {}
    for index, size in enumerate(entries["sizes"]):
        images, contrasts = [], []
        first = FIRST_SEED[side] + seed + index * PER_SIZE
        for name, subject_class in ANATOMIES.items():
            seeds = range(first, first + entries[side][name])
            for one in track(seeds, f"{side}: {name}, {size} pixels", "subjects"):
                generator = torch.Generator().manual_seed(one)
                shares = torch.rand(entries["n_slices"], generator=generator)
                subject = subject_class(one, size)
                for acquisition in subject.acquisitions:
                    image = subject.images(acquisition, (1.6 * shares - 0.8).tolist())
                    images.append((image / image.amax((-2, -1), keepdim=True)).half())
                    contrasts += [CONTRASTS.index(acquisition)] * len(image)
        pool[size] = torch.cat(images), torch.tensor(contrasts)
    return pool
