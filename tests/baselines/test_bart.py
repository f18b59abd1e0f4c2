"""TV and l1-wavelet against BART's ``pics`` with the same weight, data and maps.

Both minimise ``1/2 |A x - y|^2 + weight R(x)``. For BART's version 0.8:

* ``T:3:0`` is TV over its first two axes (flags 3 = 1 + 2), isotropic: our minimum and its image
  have the same objective to four digits once both have converged. Always ADMM.
* ``W:3:0`` is a Daubechies wavelet of 4 taps (PyWavelets' db2) over the same axes. By default its
  grid is shifted at random in each iteration, as ours; ``-n`` switches that off.
* ``-m`` solves by ADMM, which agrees with our FISTA. BART's own FISTA, the default for wavelets,
  ends, at any number of iterations, where its data term is a fifth smaller, as if the weight were
  lower: the 0.3 dB have to cover that.
"""

import pytest

from mrisem.baselines.sparse import L1Wavelet, TotalVariation


@pytest.mark.parametrize("weight", [0.005])
def test_tv_is_as_good_as_bart(real_brain, bart_pics, decibel, weight):
    batch, target = real_brain
    theirs = bart_pics(batch, "-i", "100", "-u", "0.1", "-R", f"T:3:0:{weight}")
    ours = TotalVariation(weight)(batch).image[0]
    assert abs(decibel(ours, target) - decibel(theirs, target)) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.001, 0.002])
def test_tv_is_as_good_as_converged_bart_at_small_weights(real_brain, bart_pics, decibel, weight):
    batch, target = real_brain
    theirs = bart_pics(batch, "-i", "300", "-u", "0.1", "-R", f"T:3:0:{weight}")
    ours = TotalVariation(weight)(batch).image[0]
    assert abs(decibel(ours, target) - decibel(theirs, target)) < 0.3


@pytest.mark.parametrize(
    "weight", [0.005, *(pytest.param(w, marks=pytest.mark.slow) for w in (0.001, 0.002))]
)
def test_l1_wavelet_is_as_good_as_bart(real_brain, bart_pics, decibel, weight):
    batch, target = real_brain
    theirs = bart_pics(batch, "-i", "100", "-R", f"W:3:0:{weight}")
    ours = L1Wavelet(weight)(batch).image[0]
    assert abs(decibel(ours, target) - decibel(theirs, target)) < 0.3


@pytest.mark.slow
def test_l1_wavelet_with_a_fixed_grid_equals_bart(real_brain, bart_pics, decibel, monkeypatch):
    monkeypatch.setattr("mrisem.baselines.sparse._SHIFTS", 1)  # none but 0
    batch, target = real_brain
    theirs = bart_pics(batch, "-n", "-m", "-i", "100", "-u", "0.1", "-R", "W:3:0:0.005")
    ours = L1Wavelet(0.005)(batch).image[0]
    assert abs(decibel(ours, target) - decibel(theirs, target)) < 0.05
