"""Every baseline, on all shapes that fastMRI's files may have."""

import pytest
import torch

from mrisem.baselines.classical import CGSense, ZeroFilled
from mrisem.baselines.grappa import Grappa
from mrisem.baselines.sparse import L1Wavelet, TotalVariation

METHODS = (ZeroFilled(), CGSense(), TotalVariation(), L1Wavelet(), Grappa())


@pytest.mark.parametrize("size", [(48, 40), (47, 40), (48, 41), (35, 37)])
@pytest.mark.parametrize("n_coils", [2, 5])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_baseline_reconstructs_any_shape_in_the_batch_s_scale(disc, decibel, method, n_coils, size):
    batch, target = disc(n_coils, size)
    image = method(batch).image
    assert image.shape == (1, *size)
    assert image.dtype == torch.complex64
    zero_filled = decibel(ZeroFilled()(batch).image[0], target)
    assert decibel(image[0], target) > zero_filled - 0.01


@pytest.mark.parametrize("method", METHODS[:-1], ids=lambda m: type(m).__name__)
def test_baseline_takes_a_single_coil(disc, decibel, method):
    batch, target = disc(n_coils=1, acceleration=2)
    zero_filled = decibel(ZeroFilled()(batch).image[0], target)
    assert decibel(method(batch).image[0], target) > zero_filled - 0.5


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_baseline_is_above_zero_filled_on_a_measured_brain(real_brain, decibel, method):
    batch, target = real_brain
    gain = 0.0 if isinstance(method, ZeroFilled) else 2.0
    zero_filled = decibel(ZeroFilled()(batch).image[0], target)
    assert decibel(method(batch).image[0], target) >= zero_filled + gain
