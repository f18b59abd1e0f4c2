"""Small random scans that all tests of backbones share."""

from dataclasses import replace

import pytest
import torch

from mrisem.physics.sense import SenseOperator
from mrisem.types import Batch, SliceInfo


def random_batch(n=2, coils=3, y=33, x=26, rows=18, lines=6):
    """A batch of noise images with one column mask a slice; ``lines`` may be one number a slice."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(n, coils, y, x, dtype=torch.complex64, generator=generator)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    columns = torch.rand(n, 1, x, generator=generator) < 0.3
    for i, count in enumerate([lines] * n if isinstance(lines, int) else lines):
        start = x // 2 - count // 2
        columns[i, :, start - 1 : start + count + 1] = False
        columns[i, :, start : start + count] = True
    mask = columns.expand(n, y, x)
    image = torch.randn(n, y, x, dtype=torch.complex64, generator=generator)
    kspace = SenseOperator(maps, mask).forward(image)
    info = tuple(SliceInfo("a.h5", i, n, "AXT2", "s", 2.0) for i in range(n))
    return Batch(kspace, mask, maps, torch.ones(n), (rows, x), info)


@pytest.fixture
def make_batch():
    """The function that makes a random batch."""
    return random_batch


@pytest.fixture
def points_held_out():
    """A function: the sampled entries of a batch less a third of them, point by point."""

    def hold_out(batch):
        generator = torch.Generator().manual_seed(1)
        kept = batch.mask & (torch.rand(batch.mask.shape, generator=generator) < 0.67)
        x = batch.mask.shape[-1] // 2
        kept[:, :, x] = batch.mask[:, :, x]
        return kept

    return hold_out


@pytest.fixture
def spoil():
    """A function: the batch with nonsense in every k-space entry outside a mask."""

    def spoilt(batch, mask):
        nonsense = torch.full_like(batch.masked_kspace, complex(1e3, -7e2))
        return replace(
            batch, masked_kspace=torch.where(mask[:, None], batch.masked_kspace, nonsense)
        )

    return spoilt
