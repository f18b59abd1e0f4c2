"""The unrolled network with a frozen encoder inside, held against formulas written down here."""

import copy

import pytest
import torch

from mrisem.errors import InputError
from mrisem.networks.adapters import LoRA, attach
from mrisem.networks.starts import load_start
from mrisem.networks.unrolled import Unrolled
from mrisem.networks.unrolled_vit import UnrolledViT, place
from mrisem.physics.sense import SenseOperator
from mrisem.prior.image.encoder import load_encoder
from mrisem.prior.image.perceptual import load_perceptual
from mrisem.tasks.estimate import network_cost


def vgg(seed=0, levels=(1, 2), grid=6):
    return load_perceptual("vgg16", levels, grid, random_seed=seed)


def trained(encoder=None, **sizes):
    """A network with random weights everywhere: untrained, it corrects nothing."""
    torch.manual_seed(0)
    network = UnrolledViT(encoder or vgg(), 2, 4, 2, 3, **sizes)
    for weight in network.parameters():
        if weight.ndim > 1 and not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    return network


class Claimed(torch.nn.Module):
    """An encoder of somebody else that states what the test says."""

    def __init__(self, **facts):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        stated = {"widths": (2,), "n_tokens": 9, "extent": None, "fingerprint": "mine"}
        for name, value in {**stated, **facts}.items():
            if value != "left out":
                setattr(self, name, value)

    def forward(self, magnitude):
        values = self.weight * magnitude.flatten(1)[:, : self.n_tokens]
        return (torch.stack([values, 1 - values], dim=-1),)


def test_vit_untrained_is_data_consistency_by_a_dense_solve(make_batch):
    batch = make_batch(n=1, coils=2, y=9, x=8, rows=9, lines=3)
    network = UnrolledViT(Claimed(), 2, 4, 1, 3, cg_iterations=200, cg_tolerance=1e-7)
    sense = SenseOperator(batch.sensitivity_maps, batch.mask)
    units = torch.eye(72, dtype=torch.complex64).reshape(72, 1, 9, 8)
    columns = [sense.forward(unit).flatten() for unit in units]
    matrix = torch.stack(columns, dim=1).to(torch.complex128)
    samples = batch.masked_kspace.flatten().to(torch.complex128)
    weight, normal = 0.01, matrix.mH @ matrix
    image = matrix.mH @ samples
    for _ in range(2):
        regular = normal + weight * torch.eye(72, dtype=torch.complex128)
        image = torch.linalg.solve(regular, matrix.mH @ samples + weight * image)
    found = network(batch).image.flatten().to(torch.complex128)
    assert (found - image).norm() < 1e-4 * image.norm()


def test_vit_differs_from_unrolled_by_the_features_alone(make_batch):
    network, plain = trained(), Unrolled(2, 4, 2)
    for ours, theirs in zip(network.unets, plain.unets, strict=True):
        weights = ours.unet.state_dict()
        first = next(iter(weights))
        weights[first] = weights[first][:, :2]  # what it takes of the image
        theirs.load_state_dict(weights)
    batch = make_batch()
    with_features = network(batch).image
    assert not torch.allclose(with_features, plain(batch).image, rtol=1e-3)
    for unet in network.unets:
        for projection in unet.projections:
            torch.nn.init.zeros_(projection.weight)
    torch.testing.assert_close(network(batch).image, plain(batch).image)


@pytest.mark.parametrize("extent", [12, 15, None])
@pytest.mark.parametrize("shape", [(9, 30), (12, 15), (21, 16)])
def test_place_puts_each_token_about_its_own_place(extent, shape):
    """Tokens that hold the coordinate of their centre give each pixel its own coordinate."""
    for axis, n in enumerate(shape):
        side, start = (n, 0) if extent is None else (extent, n // 2 - extent // 2)
        centres = start + (torch.arange(3.0) + 0.5) * side / 3 - 0.5
        maps = centres[:, None].expand(3, 3) if axis == 0 else centres.expand(3, 3)
        placed = place(maps[None, None], extent, shape)[0, 0]
        inside = [n // 2] * 2
        inside[1 - axis] = shape[1 - axis] // 2
        for pixel in range(n):
            inside[axis] = pixel
            value = placed[tuple(inside)]
            if centres[0] <= pixel <= centres[-1]:
                assert value == pytest.approx(pixel, abs=1e-4)
            elif not start <= pixel < start + side:
                assert value == 0


@pytest.mark.parametrize("shape", [(150, 96), (230, 260)])
@pytest.mark.parametrize("name", ["vgg16", "janus_mini"])
def test_vit_features_lie_where_they_were_seen(name, shape):
    """A spot changes the features most where it lies, in images below and above the input."""
    encoder = vgg(levels=(1,), grid=24) if name == "vgg16" else load_encoder("janus_mini", [1])
    network = UnrolledViT(encoder, 1, 4, 1)
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(torch.complex64)
    row, column = shape[0] // 2 + 30, shape[1] // 2 - 25
    spotted = image.clone()
    spotted[:, row - 3 : row + 4, column - 3 : column + 4] *= 0.2
    features = network.unets[0].features
    (before,), (after,) = features(image), features(spotted)
    changes = place((after - before).square().sum(1, keepdim=True), encoder.extent, shape)[0, 0]
    y, x = divmod(int(changes.argmax()), shape[1])
    assert abs(y - row) <= 8  # a token of either is 4 to 11 pixels wide
    assert abs(x - column) <= 8


def test_vit_gradient_reaches_the_decoder_only(make_batch):
    encoder = Claimed()
    graphs = []
    encoder.register_forward_hook(lambda _, inputs, output: graphs.append(output[0].requires_grad))
    network = trained(encoder)
    network(make_batch()).image.abs().sum().backward()
    assert graphs == [False, False]
    assert encoder.weight.grad is None
    assert not encoder.weight.requires_grad
    assert all(weight.grad is not None for weight in network.parameters())


def test_vit_encoder_is_in_no_state_dict_and_shared_by_copies():
    encoder = vgg()
    network = UnrolledViT(encoder, 1, 4, 1, 3)
    of_encoder = {weight.data_ptr() for weight in encoder.parameters()}
    copied = copy.deepcopy(network)
    attach(copied, LoRA(rank=2), torch.Generator().manual_seed(0))
    assert copied.unets[0].features is network.unets[0].features
    for each in (network, copied):
        assert of_encoder.isdisjoint(value.data_ptr() for value in each.state_dict().values())
        assert of_encoder.isdisjoint(weight.data_ptr() for weight in each.parameters())
    assert not any("lora" in name for name in encoder.state_dict())
    network.train()
    assert not encoder.training


def test_vit_weights_of_another_encoder_are_refused(tmp_path):
    network = trained()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "a.ckpt")
    load_start(trained(), tmp_path / "a.ckpt", "unrolled_vit")
    for other in (vgg(seed=1), vgg(levels=(1, 3)), load_encoder("janus_mini", [1])):
        with pytest.raises(InputError, match="of a network with the same encoder") as refused:
            load_start(UnrolledViT(other, 2, 4, 2, 3), tmp_path / "a.ckpt", "unrolled_vit")
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="of a network with the same encoder"):
        UnrolledViT(vgg(seed=1), 2, 4, 2, 3).load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"n_tokens": 10}, "on a square grid, got 10 tokens of width"),
        ({"widths": (8, 1)}, "tokens of two features or more .* of width .8, 1."),
        ({"extent": "left out"}, "must state widths, n_tokens, extent, fingerprint, got Claimed"),
    ],
)
def test_vit_encoder_that_cannot_be_used_is_refused(facts, said):
    with pytest.raises(InputError, match=said) as refused:
        UnrolledViT(Claimed(**facts))
    assert "\n" not in str(refused.value)


def test_vit_cost_counts_the_encoder_and_keeps_its_weights():
    encoder = vgg(levels=(3,), grid=4)
    before = encoder.state_dict()
    cost = network_cost(UnrolledViT(encoder, 2, 4, 2, 3), (2, 64, 48), (64, 48))
    plain = network_cost(Unrolled(2, 4, 2), (2, 64, 48), (64, 48))
    # 3 x 3 convolutions of VGG16 to relu3_3, a multiplication and an addition each, of 64 x 48
    passes = 2 * 9 * (3 * 64 + 64 * 64 + (64 * 128 + 128 * 128) / 4 + (128 + 2 * 256) * 256 / 16)
    assert cost.flops - plain.flops == pytest.approx(2 * passes * 64 * 48, rel=0.05)
    after = encoder.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
