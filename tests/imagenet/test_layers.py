from itertools import pairwise

import pytest
import torch
import torchvision
from torch import nn

from mrisem.errors import InputError
from mrisem.imagenet.layers import ARCHITECTURES, ConvolutionalLayers, layer_shapes
from mrisem.imagenet.weights import random_weights


def torchvisions_activations(network, weights, pixels):
    """What forward hooks see at the ReLUs that count: VGG's before a pooling, all of AlexNet's."""
    with torch.device("meta"):
        features = getattr(torchvision.models, network)(weights=None).features
    features.to_empty(device="cpu").load_state_dict(weights)
    activations = []
    modules = [*features]
    for module, following in pairwise(modules):
        if isinstance(module, nn.ReLU) and (
            network == "alexnet" or isinstance(following, nn.MaxPool2d)
        ):
            module.register_forward_hook(lambda m, i, output: activations.append(output.clone()))
    with torch.no_grad():
        features(pixels)
    return activations


@pytest.mark.parametrize("network", ["alexnet", "vgg16"])
def test_blocks_equal_what_torchvisions_forward_hooks_see(network):
    weights = random_weights(network, 0)
    pixels = torch.rand((2, 3, 68, 83), generator=torch.Generator().manual_seed(1))
    activations = ConvolutionalLayers(network, weights)(pixels)
    expected = torchvisions_activations(network, weights, pixels)
    torch.testing.assert_close(activations, tuple(expected), rtol=0, atol=0)
    assert [a.shape[1] for a in activations] == [*ARCHITECTURES[network].widths]


def test_layers_are_frozen_and_stay_in_evaluation_mode():
    layers = ConvolutionalLayers("alexnet", random_weights("alexnet", 0)).train()
    assert not layers.training
    assert not any(weight.requires_grad for weight in layers.parameters())


def test_layers_beyond_the_last_block_are_left_out():
    weights = random_weights("alexnet", 0)
    kept = ConvolutionalLayers("alexnet", weights, 2)
    assert [*kept.state_dict()] == [f"features.{i}.{w}" for i in (0, 3) for w in ("weight", "bias")]
    assert len(kept(torch.rand(1, 3, 64, 64))) == 2


@pytest.mark.parametrize("network", ["alexnet", "vgg16"])
def test_the_smallest_image_is_the_smallest_that_torchvision_takes(network):
    side = ARCHITECTURES[network].smallest_image
    weights = random_weights(network, 0)
    layers = ConvolutionalLayers(network, weights)
    assert len(layers(torch.rand(1, 3, side, side + 1))) == 5
    with pytest.raises(InputError, match=f"at least {side} x {side} pixels"):
        layers(torch.rand(1, 3, side, side - 1))
    with pytest.raises(RuntimeError):
        layers.features(torch.rand(1, 3, side - 1, side))


def test_making_layers_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    ConvolutionalLayers("vgg16", random_weights("vgg16", 0), 1)
    assert torch.equal(before, torch.get_rng_state())


def test_layer_shapes_are_those_of_the_papers_network():
    shapes = [*layer_shapes("vgg16").values()]
    assert [shape[0] for shape in shapes[::2]] == [
        *[64] * 2,
        *[128] * 2,
        *[256] * 3,
        *[512] * 6,
    ]  # configuration D of Simonyan & Zisserman
    assert {shape[2:] for shape in shapes[::2]} == {(3, 3)}
