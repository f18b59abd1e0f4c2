"""What every backbone owes the tasks, whatever it computes."""

import pytest
import torch

from mrisem.networks.inr import INR
from mrisem.networks.unet import Unet
from mrisem.networks.unrolled import Unrolled
from mrisem.networks.unrolled_vit import UnrolledViT
from mrisem.networks.varnet import EndToEndVarNet
from mrisem.prior.image.perceptual import load_perceptual

BACKBONES = {
    "unet": lambda: Unet(channels=4, levels=2),
    "unrolled": lambda: Unrolled(stages=2, channels=4, levels=2),
    "unrolled_vit": lambda: UnrolledViT(
        load_perceptual("vgg16", (1, 2), 4, random_seed=0), 2, 4, 2, 3
    ),
    "varnet": lambda: EndToEndVarNet(2, 3, 2, 2, 2),
    "inr": lambda: INR(layers=2, width=16, adaptor_width=8),
}
SHAPES = {
    "odd": {"n": 2, "coils": 3, "y": 33, "x": 27, "rows": 17},
    "one_coil": {"n": 1, "coils": 1, "y": 40, "x": 22, "rows": 20},
    "wide_three_slices": {"n": 3, "coils": 5, "y": 21, "x": 51, "rows": 21},
}
# The first cascade starts from the samples themselves, so its soft data consistency is zero.
WITHOUT_GRADIENT = {"varnet.cascades.0.dc_weight"}


@pytest.fixture(params=BACKBONES)
def network(request):
    """A small backbone with random weights everywhere: zero starts would hide inner ones."""
    torch.manual_seed(0)
    network = BACKBONES[request.param]()
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.parametrize("shape", SHAPES)
def test_backbone_returns_a_finite_image_of_the_size_of_kspace(network, shape, make_batch):
    batch = make_batch(**SHAPES[shape])
    result = network(batch)
    assert result.image.shape == batch.mask.shape
    assert result.image.dtype == torch.complex64
    assert result.image.isfinite().all()
    assert torch.equal(result.iterates[-1], result.image)
    assert {iterate.shape for iterate in result.iterates} == {batch.mask.shape}


@pytest.mark.parametrize("coils", [1, 4])
def test_backbone_gradient_reaches_every_parameter(network, coils, make_batch, points_held_out):
    batch = make_batch(coils=coils, y=35, x=27)
    network(batch, points_held_out(batch)).image.abs().square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name in WITHOUT_GRADIENT, name


def test_backbone_sees_nothing_outside_its_mask(network, make_batch, points_held_out, spoil):
    batch = make_batch()
    mask = points_held_out(batch)
    expected = network(batch, mask)
    spoilt = network(spoil(batch, mask), mask)
    for image, other in zip(expected.iterates, spoilt.iterates, strict=True):
        assert torch.equal(image, other)


def test_backbone_sees_something_inside_its_mask(network, make_batch, points_held_out, spoil):
    batch = make_batch()
    nothing = torch.zeros_like(batch.mask)
    same = torch.equal(network(batch).image, network(spoil(batch, nothing)).image)
    assert same == isinstance(network, INR)  # which is a function of position alone


def test_backbone_without_a_mask_uses_all_samples(network, make_batch):
    batch = make_batch()
    assert torch.equal(network(batch).image, network(batch, batch.mask).image)


def test_backbone_treats_each_slice_by_itself(network, make_batch, points_held_out):
    batch = make_batch(n=3, lines=(4, 7, 7))
    mask = points_held_out(batch)
    together = network(batch, mask).image
    for i in range(3):
        alone = network(batch.select(i), mask[i : i + 1]).image[0]
        torch.testing.assert_close(together[i], alone, atol=1e-5, rtol=1e-4)


def test_backbone_state_dict_holds_all_of_it(network, make_batch, tmp_path, request):
    torch.save(network.state_dict(), tmp_path / "state.pt")
    fresh = BACKBONES[request.node.callspec.params["network"]]()
    batch = make_batch()
    assert not torch.equal(fresh(batch).image, network(batch).image)
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(fresh(batch).image, network(batch).image)
