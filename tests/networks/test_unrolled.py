import pytest
import torch

from mrisem.networks.unet import ResidualUnet, channels_to_complex, complex_to_channels
from mrisem.networks.unrolled import Unrolled
from mrisem.physics.sense import SenseOperator
from mrisem.physics.solvers import solve_data_consistency
from mrisem.types import Batch, SliceInfo


def make_batch(y=33, x=26, rows=18):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, y, x, dtype=torch.complex64, generator=generator)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    mask = (torch.rand(2, 1, x, generator=generator) < 0.5).expand(2, y, x)
    image = torch.randn(2, y, x, dtype=torch.complex64, generator=generator)
    kspace = SenseOperator(maps, mask).forward(image)
    info = tuple(SliceInfo("a.h5", i, 2, "AXT2", "s", 2.0) for i in range(2))
    return Batch(kspace, mask, maps, torch.ones(2), (rows, x), info)


def test_complex_channels_round_trip():
    image = torch.randn(2, 5, 4, dtype=torch.complex64)
    assert torch.equal(channels_to_complex(complex_to_channels(image)), image)


@pytest.mark.parametrize("shape", [(1, 1), (17, 23), (32, 16)])
def test_residual_unet_starts_as_the_identity_at_any_size(shape):
    image = torch.randn(2, *shape, dtype=torch.complex64)
    torch.testing.assert_close(ResidualUnet(channels=4, levels=2)(image), image)


def test_unrolled_untrained_is_repeated_data_consistency():
    batch = make_batch()
    network = Unrolled(stages=2, channels=4, levels=2, cg_iterations=50, cg_tolerance=1e-6)
    sense = SenseOperator.of(batch)
    adjoint = sense.adjoint(batch.masked_kspace)
    x = adjoint
    for _ in range(2):
        x = solve_data_consistency(
            sense, adjoint, x, torch.tensor(0.01), tolerance=1e-6, max_iterations=50
        )
    result = network(batch)
    torch.testing.assert_close(result.image, x, atol=1e-4, rtol=1e-4)
    assert len(result.iterates) == 3


def test_unrolled_gradient_reaches_every_parameter():
    network = Unrolled(stages=2, channels=4, levels=2)
    for unet in network.unets:  # away from the zero start, where inner weights have no gradient
        torch.nn.init.normal_(unet.unet.up_conv[-1][-1].weight)
    network(make_batch()).image.abs().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_unrolled_state_dict_holds_every_stage():
    names = set(Unrolled(stages=3, channels=4, levels=2).state_dict())
    for stage in range(3):
        assert f"log_lambdas.{stage}" in names
        assert any(name.startswith(f"unets.{stage}.") for name in names)


def test_unrolled_sees_only_the_given_mask():
    batch = make_batch()
    mask_dc = batch.mask & (torch.arange(26) % 3 > 0)
    network = Unrolled(stages=1, channels=4, levels=2)
    expected = network(batch, mask_dc).image
    hidden = batch.masked_kspace.clone()
    hidden[~mask_dc[:, None].expand_as(hidden)] = 1e3
    changed = Batch(hidden, batch.mask, batch.sensitivity_maps, batch.scale, batch.crop, batch.info)
    torch.testing.assert_close(network(changed, mask_dc).image, expected)
