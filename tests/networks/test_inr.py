import copy

import numpy as np
import pytest
import torch

from mrisem.networks.inr import INR, Siren, grid


def test_siren_is_sitzmanns_formula():
    siren = Siren(layers=3, width=7, omega=12.0)
    points = torch.rand(5, 2) * 2 - 1
    h = points.double().numpy()
    for index, layer in enumerate(siren.layers):
        weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
        h = np.stack([weight @ row + bias for row in h])
        if index < 3:
            h = np.sin(12.0 * h)
    np.testing.assert_allclose(siren(points).detach().numpy(), h, atol=1e-5)


@pytest.mark.parametrize("omega", [15.0, 30.0])
def test_siren_weights_start_as_in_its_paper(omega):
    siren = Siren(layers=4, width=256, omega=omega)
    first, *hidden = (layer.weight for layer in siren.layers)
    assert first.abs().max() <= 0.5
    assert first.std().item() == pytest.approx(1 / np.sqrt(12), rel=0.1)
    bound = np.sqrt(6 / 256) / omega
    for weight in hidden:
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.1)


def test_siren_arguments_spread_alike_in_every_layer():
    """The purpose of that initialisation: hidden arguments are about standard normal."""
    torch.manual_seed(0)
    siren = Siren(layers=5, width=256, omega=15.0)
    spreads = []
    for layer in siren.layers[1:-1]:
        layer.register_forward_hook(lambda _, __, out: spreads.append(15 * out.std().item()))
    siren(grid(32, 32))
    assert all(0.8 < spread < 1.3 for spread in spreads), spreads


def test_grid_runs_from_edge_to_edge_row_by_row():
    points = grid(4, 3).reshape(4, 3, 2)
    np.testing.assert_allclose(points[:, 1, 0], np.linspace(-1, 1, 4), atol=1e-6)
    np.testing.assert_allclose(points[2, :, 1], [-1, 0, 1], atol=1e-6)


def test_inr_image_is_the_siren_at_each_pixel_until_the_adaptor_is_trained(make_batch):
    network = INR(layers=2, width=16, adaptor_width=8)
    image = network(make_batch(y=11, x=8, rows=6)).image
    value = network.siren(torch.tensor([[2 * 3 / 10 - 1, 2 * 5 / 7 - 1]]))[0]
    torch.testing.assert_close(image[0, 3, 5], torch.complex(*value))
    assert torch.equal(image[0], image[1])


def test_inr_parameters_fall_into_two_groups():
    network = INR(layers=2, width=16, adaptor_width=8)
    groups = [*network.siren.parameters(), *network.adaptor.parameters()]
    assert {id(p) for p in groups} == {id(p) for p in network.parameters()}
    assert [layer.out_channels for layer in INR().adaptor.layers] == [256, 256, 2]
    assert [layer.out_features for layer in INR().siren.layers] == [256] * 8 + [2]


def fit(network, batch, target, steps):
    """Fit to an image with the paper's learning rates' ratio; return first and last loss."""
    groups = [
        {"params": network.siren.parameters(), "lr": 1e-3},
        {"params": network.adaptor.parameters(), "lr": 1e-2},
    ]
    optimiser = torch.optim.Adam(groups)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (network(batch).image - target).abs().square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


def smooth_image(n, y, x):
    row, column = grid(y, x).reshape(y, x, 2).unbind(-1)
    return (torch.exp(-2 * (row**2 + column**2)) * torch.exp(2j * column * row)).expand(n, y, x)


def test_inr_fits_a_smooth_image(make_batch):
    torch.manual_seed(0)
    batch = make_batch(n=1, y=32, x=25)
    network = INR(layers=3, width=32, adaptor_width=8)
    first, last = fit(network, batch, smooth_image(1, 32, 25), 100)
    assert last < first / 100, (first, last)


def test_inr_frozen_siren_is_drawn_once_and_the_adaptor_still_learns(make_batch):
    torch.manual_seed(0)
    batch = make_batch(n=1, y=32, x=25)
    network = INR(layers=2, width=16, adaptor_width=8)
    expected = network(batch).image
    network.siren.requires_grad_(False)
    calls = []
    network.siren.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        assert torch.equal(network(batch).image, expected)
    first, last = fit(network, batch, smooth_image(1, 32, 25), 20)
    assert last < first
    assert len(calls) == 1
    assert set(network.state_dict()) == set(INR(layers=2, width=16, adaptor_width=8).state_dict())


def test_inr_frozen_siren_is_drawn_again_after_any_change(make_batch):
    batch = make_batch()
    network = INR(layers=2, width=16, adaptor_width=8)
    network.siren.requires_grad_(False)
    before = network(batch).image
    assert network(make_batch(y=20, x=21)).image.shape == (2, 20, 21)
    other = copy.deepcopy(network)
    other.load_state_dict(INR(layers=2, width=16, adaptor_width=8).state_dict())
    assert not torch.equal(other(batch).image, before)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(batch).image, before)
    with torch.no_grad():
        network.siren.layers[0].bias.add_(1)
    assert not torch.equal(network(batch).image, before)
