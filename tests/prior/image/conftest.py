"""A small encoder, auxiliary slices for it, and a bank of them."""

import pytest
import torch

from mrisem.prior.image.building import build_bank


class LinearEncoder:
    """Tokens are fixed linear maps of 4 x 4 patches, at two levels."""

    levels = (1, 2)
    widths = (6, 6)
    n_tokens = 4
    fingerprint = "linear"

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.weights = [torch.randn(16, 6, generator=generator) for _ in self.levels]

    def __call__(self, magnitude):
        patches = magnitude.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3).flatten(1, 2)
        return tuple(patches @ w for w in self.weights)


@pytest.fixture
def linear():
    return LinearEncoder()


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    return [(*torch.rand(2, 8, 8, generator=generator), None) for _ in range(5)]


@pytest.fixture
def bank(linear, pairs):
    return build_bank(linear, pairs, [3, 6], {"made": "of this"})
