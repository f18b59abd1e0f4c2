"""Images, and the small Janus that ships."""

from pathlib import Path

import pytest
import torch

import mrisem

JANUS_MINI = Path(mrisem.__file__).parent / "assets" / "janus_mini"


@pytest.fixture
def generator():
    """Seed -> generator."""
    return lambda seed=0: torch.Generator().manual_seed(seed)


@pytest.fixture
def phantom():
    """Number, size -> that many equal images."""

    def make(n, size):
        axis = torch.linspace(-1, 1, size)
        radius = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
        image = (radius < 0.8) * (0.6 + 0.4 * torch.cos(25 * axis)[:, None])
        return (image / image.amax()).expand(n, -1, -1)

    return make


@pytest.fixture(scope="session")
def processor():
    """The processor that ships with janus_mini."""
    from transformers import JanusProcessor

    return JanusProcessor.from_pretrained(JANUS_MINI)
