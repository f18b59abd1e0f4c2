"""A prior whose gradient can be written down."""

import pytest
import torch

from mrisem.physics.sense import SenseOperator
from mrisem.types import Batch, SliceInfo


class SquaredMagnitude:
    """A stand-in for a SemanticPrior whose gradient is known."""

    def losses(self, magnitude, iteration=0):
        return {"semantic": magnitude.square().sum((1, 2))}

    def diagnose(self, magnitude, iteration):
        return {}

    def signature(self, magnitude):
        return {"1": magnitude.mean((1, 2))[:, None].repeat(1, 3)}

    def bank_signature(self):
        return {"1": (torch.ones(2, 3), torch.zeros(2, 3))}


@pytest.fixture
def squared_magnitude():
    return SquaredMagnitude()


def disc_batch(n=2, seed=0, coils=3, size=(72, 64)):
    """A disc with stripes, every second line beside 24 calibration lines, constant coils."""
    y, x = size
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(n, coils, 1, 1, dtype=torch.complex64, generator=generator)
    maps = (maps / maps.abs().square().sum(1, keepdim=True).sqrt()).expand(n, coils, y, x)
    yy, xx = torch.meshgrid(torch.linspace(-1, 1, y), torch.linspace(-1, 1, x), indexing="ij")
    image = ((yy**2 + xx**2) < 0.5).to(torch.complex64) * (1 + 0.3 * torch.cos(9 * xx))
    mask = torch.zeros(n, y, x, dtype=torch.bool)
    mask[:, :, ::2] = True
    mask[:, :, x // 2 - 12 : x // 2 + 12] = True
    kspace = SenseOperator(maps, mask).forward(image.expand(n, y, x))
    info = tuple(SliceInfo("a.h5", i, n, "AXT2", "s", 1.5) for i in range(n))
    target = image.abs().expand(n, y, x)[:, y // 2 - y // 4 : y // 2 + y // 4]
    crop = (target.shape[1], x)
    return Batch(kspace, mask, maps, torch.ones(n), crop, info, target)


@pytest.fixture
def make_batch():
    return disc_batch
