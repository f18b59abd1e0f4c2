import math
from dataclasses import replace

import pytest
import torch
from fastmri.losses import SSIMLoss

from mrisem.errors import InputError
from mrisem.networks.unet import Unet
from mrisem.tasks.guidance import Guidance, Steering
from mrisem.tasks.network import NetworkTask
from mrisem.tasks.objectives import Placement, SelfSupervised, Supervised, gradients_at
from mrisem.tasks.regularisers import Regulariser
from mrisem.tasks.samples import split_samples
from mrisem.types import Reconstruction


def make_network():
    torch.manual_seed(0)
    network = Unet(channels=4, levels=2)
    for parameter in network.parameters():  # an untrained one is the identity
        parameter.data += 0.01
    return network


def gradients(loss, network):
    return torch.autograd.grad(loss, [*network.parameters()])


def test_supervised_terms_are_l1_and_fastmris_ssim_loss(make_batch):
    batch = make_batch()
    result, terms = Supervised()(make_network(), batch, 0, 0)
    image = result.image
    magnitude = image.abs()[:, 18:54, None].movedim(2, 1)
    target = batch.target[:, None]
    values = terms(image)
    torch.testing.assert_close(values["l1"].mean(), (magnitude - target).abs().mean())
    expected = SSIMLoss()(magnitude, target, target.amax((1, 2, 3)))
    torch.testing.assert_close(values["ssim_loss"].mean(), expected)


@pytest.mark.parametrize("objective", [Supervised(), SelfSupervised()])
def test_training_step_has_the_gradient_of_the_mean_of_its_terms(make_batch, objective):
    batch, network = make_batch(), make_network()
    regulariser = Regulariser("tv", 0.1)
    task = NetworkTask(network, regulariser=regulariser, objective=objective)
    _, scalar = task._evaluate(batch)
    result, terms = objective(network, batch, 0, 0)
    image = result.image
    plain = sum(value.mean() for value in terms(image).values()) + regulariser(image).mean()
    for ours, expected in zip(gradients(scalar, network), gradients(plain, network), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)


def test_gradients_at_adds_the_prior_in_balance(make_batch, squared_magnitude):
    batch = make_batch()
    image = torch.randn(2, 72, 64, dtype=torch.complex64)
    guidance = Guidance(squared_magnitude, batch, Steering(weight=math.inf, balance=0.5))
    terms = lambda x: {"data": x.real.sum((1, 2))}  # noqa: E731
    result = Reconstruction(image.requires_grad_())
    values, _, (gradient,) = gradients_at(result, terms, None, guidance, 0, Placement())
    push = gradient - 1  # the data term's gradient is one everywhere
    assert set(values) == {"data", "semantic", "gradient_balance"}
    expected = 0.5 * (72 * 64) ** 0.5
    torch.testing.assert_close(push.flatten(1).norm(dim=1), torch.full((2,), expected))


def test_self_supervised_takes_its_splits_in_turn(make_batch):
    batch, seen = make_batch(1), []

    class Network(torch.nn.Module):
        def forward(self, batch, mask=None):
            seen.append(mask)
            return make_network()(batch, mask)

    for epoch in range(4):
        SelfSupervised(n_splits=3)(Network(), batch, epoch, 0)
    assert torch.equal(seen[0], seen[3])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize("seed", range(8))
def test_split_samples_is_disjoint_and_complete_at_any_size_and_acceleration(make_batch, seed):
    generator = torch.Generator().manual_seed(seed)
    y, x = (int(n) for n in torch.randint(48, 90, (2,), generator=generator))
    batch = make_batch(2, seed, size=(y, x))
    lines = torch.rand(2, 1, x, generator=generator) < 1 / (2 + seed)
    lines[..., x // 2 - 12 : x // 2 + 12] = True
    mask = lines.expand(2, y, x)
    share = 0.1 + 0.05 * seed
    left, held_out = split_samples(batch, mask, share, "split", seed)
    assert not (left & held_out).any()
    assert torch.equal(left | held_out, mask)
    wanted = (share * mask.sum((1, 2))).round().long()
    assert torch.equal(held_out.sum((1, 2)), wanted)
    other, _ = split_samples(batch, mask, share, "validation", seed)
    assert not torch.equal(left, other)


@pytest.mark.parametrize("purpose", ["split", "validation"])
def test_split_samples_keeps_the_calibration_lines_with_all_their_rows(make_batch, purpose):
    batch = make_batch(2, size=(80, 128))
    mask = batch.mask.clone()
    mask[1, :, 128 // 2 - 12] = False  # one line less on one side: a narrower centred block
    batch = replace(batch, mask=mask)
    left, held_out = split_samples(batch, mask, 0.2, purpose, 0, calibration="lines")
    for i, lines in enumerate((slice(52, 76), slice(53, 75))):
        assert left[i, :, lines].all()
        assert held_out[i, :, : lines.start].any()
    assert torch.equal(held_out.sum((1, 2)), (0.2 * mask.sum((1, 2))).round().long())
    _, block = split_samples(batch, mask, 0.2, purpose, 0)
    assert block[:, :, 52:76].any()


def test_split_samples_names_the_choice_when_too_few_lie_beside_the_calibration_lines(make_batch):
    batch = make_batch(1, size=(80, 40))
    with pytest.raises(InputError, match=r"block \(80, 25\), only .*fit.calibration=block"):
        split_samples(batch, batch.mask, 0.4, "split", 0, calibration="lines")


def test_supervised_names_a_file_without_target(make_batch):
    batch = replace(make_batch(1), target=None)
    with pytest.raises(InputError, match=r"a\.h5 has none; set objective=self_supervised"):
        Supervised()(make_network(), batch, 0, 0)
