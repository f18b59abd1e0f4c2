"""A prior whose gradient can be written down."""

import pytest
import torch


class SquaredMagnitude:
    """A stand-in for a SemanticPrior whose gradient is known."""

    def losses(self, magnitude):
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
