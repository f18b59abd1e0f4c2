"""Loaders of batches: the order of an epoch, and the share of each of several processes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from mrisem.data.dataset import SliceGroups
from mrisem.physics.masks import stable_seed
from mrisem.signals import leave


def make_loader(groups: SliceGroups, order: Sequence[int], n_workers: int) -> DataLoader:
    """Return a loader that gives the groups in an order, read ahead by ``n_workers`` processes."""
    return DataLoader(
        groups,
        batch_size=None,  # each group is a batch already
        sampler=order,
        num_workers=n_workers,
        prefetch_factor=1 if n_workers else None,  # batches are large: one waits in each reader
        worker_init_fn=leave,
    )


def random_order(n: int, seed: int, trainer: pl.Trainer | None) -> list[int]:
    """Draw the order of an epoch of ``n`` batches, or this process's share of it."""
    # not drawn by the loader: its generator advances each time that Lightning inspects it
    generator = torch.Generator().manual_seed(stable_seed("order", seed))
    order: list[int] = torch.randperm(n, generator=generator).tolist()
    return order if trainer is None else share_of(order, trainer.global_rank, trainer.world_size)


def share_of(order: Sequence[int], rank: int, n: int) -> list[int]:
    """Return the share of process ``rank`` of ``n``: equally many each, some entries twice for it.

    >>> share_of([4, 0, 3, 1, 2], 0, 2), share_of([4, 0, 3, 1, 2], 1, 2)
    ([4, 3, 2], [0, 1, 4])
    """
    # Gradients are averaged over all processes at each step: an unequal share would block the last.
    return list(islice(cycle(order), rank, -(-len(order) // n) * n, n))
