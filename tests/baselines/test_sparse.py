import numpy as np
import pytest
import torch
from sigpy.linop import FiniteDifference

from mrisem.baselines.classical import CGSense
from mrisem.baselines.sparse import L1Wavelet, TotalVariation
from mrisem.errors import InputError
from mrisem.physics.sense import Measurement


def tv_objective(batch, image, weight):
    """``1/2 |A x - y|^2 + weight TV(x)``, written out with periodic differences."""
    residual = Measurement.of(batch).forward(image) - batch.masked_kspace
    steps = torch.stack([image - image.roll(1, axis) for axis in (-2, -1)])
    length = steps.abs().square().sum(0).sqrt()
    return float(residual.abs().square().sum() / 2 + weight * length.sum())


@pytest.mark.parametrize("weight", [0.0005, 0.002, 0.01])
def test_tv_reaches_the_minimum_at_any_weight(disc, weight):
    """The minimum: no point around the image of many iterations is below it."""
    batch, _ = disc()
    found = tv_objective(batch, TotalVariation(weight)(batch).image, weight)
    image = TotalVariation(weight, 1000)(batch).image
    best = tv_objective(batch, image, weight)
    assert found < 1.01 * best
    generator = torch.Generator().manual_seed(0)
    for size in (1e-2, 1e-3):
        for _ in range(5):
            step = torch.randn(image.shape, dtype=image.dtype, generator=generator)
            assert tv_objective(batch, image + size * step, weight) > best * (1 - 1e-6)


def test_tv_differences_are_those_of_sigpy():
    image = torch.randn(6, 5, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    ours = torch.stack([image - image.roll(1, axis) for axis in (-2, -1)]).numpy()
    np.testing.assert_allclose(FiniteDifference((6, 5))(image.numpy()), ours, atol=1e-6)


def test_l1_wavelet_moving_grid_beats_a_fixed_one(disc, decibel, monkeypatch):
    batch, target = disc(size=(96, 96))
    moving = decibel(L1Wavelet(0.002)(batch).image[0], target)
    monkeypatch.setattr("mrisem.baselines.sparse._SHIFTS", 1)  # none but 0
    assert moving > decibel(L1Wavelet(0.002)(batch).image[0], target) + 0.3


def test_l1_wavelet_is_the_same_each_time_and_beside_other_slices(disc):
    batch, _ = disc()
    both = type(batch)(
        *(getattr(batch, name).repeat_interleave(2, 0) for name in
          ("masked_kspace", "mask", "sensitivity_maps", "scale")),
        batch.crop, batch.info * 2,
    )  # fmt: skip
    once = L1Wavelet()(batch).image
    torch.testing.assert_close(L1Wavelet()(both).image, once.expand(2, -1, -1))


@pytest.mark.parametrize("method", [TotalVariation(0.002), L1Wavelet(0.002)])
def test_sparse_is_above_cg_sense_on_a_sparse_image(disc, decibel, method):
    batch, target = disc(size=(96, 96), acceleration=4)
    linear = decibel(CGSense(0.003)(batch).image[0], target)
    assert decibel(method(batch).image[0], target) > linear + 1


@pytest.mark.parametrize("make", [TotalVariation, L1Wavelet])
@pytest.mark.parametrize("arguments", [{"weight": 0}, {"weight": -1.0}, {"iterations": 0}])
def test_sparse_refuses_weights_and_iterations_that_are_not_positive(make, arguments):
    with pytest.raises(InputError, match=str(next(iter(arguments.values())))):
        make(**arguments)
