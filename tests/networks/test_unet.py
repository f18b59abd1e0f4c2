import pytest
import torch
from torch import nn

from mrisem.networks.unet import (
    ResidualUnet,
    Unet,
    channels_to_complex,
    complex_to_channels,
)
from mrisem.physics.sense import Measurement


class Shift(nn.Module):
    """Moves its input by one pixel in both directions, as a convolution could."""

    def forward(self, channels):
        return channels.roll((1, 1), dims=(-2, -1))


def test_complex_channels_round_trip():
    image = torch.randn(2, 5, 4, dtype=torch.complex64)
    assert torch.equal(channels_to_complex(complex_to_channels(image)), image)
    assert torch.equal(complex_to_channels(image)[:, 1], image.imag)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (17, 23), (32, 16), (33, 31)])
def test_residual_unet_starts_as_exactly_the_identity_at_any_size(shape):
    image = torch.randn(2, *shape, dtype=torch.complex64)
    assert torch.equal(ResidualUnet(channels=4, levels=2)(image), image)


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (17, 23), (32, 16), (33, 31)])
def test_residual_unet_cuts_back_exactly_what_it_padded(shape):
    image = torch.randn(2, *shape, dtype=torch.complex64)
    network = ResidualUnet(channels=4, levels=2)
    network.unet = nn.Identity()
    assert torch.equal(network(image), 2 * image)
    network.unet = Shift()
    moved = torch.nn.functional.pad(complex_to_channels(image), (1, 0, 1, 0))[..., :-1, :-1]
    if all(n % 4 for n in shape):  # there is a margin of zeros to be shifted in
        assert torch.equal(network(image), image + channels_to_complex(moved))


def test_residual_unet_pads_to_the_multiple_and_no_further():
    sizes = []
    network = ResidualUnet(channels=4, levels=3)
    network.unet.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-2:]))
    for shape in [(32, 24), (33, 23), (5, 8)]:
        network(torch.zeros(1, *shape, dtype=torch.complex64))
    assert sizes == [(32, 24), (40, 24), (16, 16)]


def test_unet_untrained_is_exactly_the_zero_filled_image(make_batch, points_held_out):
    batch = make_batch(y=33, x=27, rows=17)
    mask = points_held_out(batch)
    zero_filled = Measurement.of(batch, mask).adjoint(batch.masked_kspace)
    assert torch.equal(Unet(channels=4, levels=3)(batch, mask).image, zero_filled)
