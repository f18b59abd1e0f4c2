"""A small teacher with random weights, slices of good and aliased images, and its prior."""

import pytest
import torch

from mrisem.data.auxiliary import AuxiliarySettings
from mrisem.prior.image.building import build_bank
from mrisem.prior.image.perceptual import load_perceptual
from mrisem.prior.image.prior import SemanticPrior


class Slices(list):
    """What AuxiliarySlices hands out: stripes as bad images, others for another seed."""

    volumes = ()

    def __init__(self, settings, side=48):
        self.settings = settings
        axis = torch.linspace(-1, 1, side)
        for width in (0.3, 0.5, 0.7):
            good = torch.exp(-(axis[:, None] ** 2 + axis**2) / width**2)
            stripes = torch.cos((30 + settings.seed) * axis)
            self.append((good, good * (1 + 0.4 * stripes), None))

    def of(self, volumes, settings):
        return Slices(settings)


@pytest.fixture
def slices():
    return Slices(AuxiliarySettings())


@pytest.fixture
def teacher(slices):
    encoder = load_perceptual("alexnet", [2], 4, random_seed=0, dtype="float32")
    return SemanticPrior(encoder, build_bank(encoder, slices, [5], {}), [1.0])
