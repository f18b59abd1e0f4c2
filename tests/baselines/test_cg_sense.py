import numpy as np
import pytest
from sigpy.mri.app import SenseRecon

from mrisem.baselines.classical import CGSense, ZeroFilled


def sigpy_sense(batch, weight):
    """``(A^H A + weight) x = A^H y``: sigpy halves both terms of our objective."""
    app = SenseRecon(
        batch.masked_kspace[0].numpy(),
        batch.sensitivity_maps[0].numpy(),
        weight,
        weights=batch.mask[0].numpy().astype(np.float32),
        max_iter=60,
        show_pbar=False,
    )
    return app.run()


@pytest.mark.parametrize("weight", [0.001, 0.01, 0.1])
def test_cg_sense_equals_sigpy_on_a_simulated_disc(disc, weight):
    batch, _ = disc()
    check_equal(batch, weight)


@pytest.mark.parametrize("weight", [0.003, 0.03])
def test_cg_sense_equals_sigpy_on_a_measured_brain(real_brain, weight):
    check_equal(real_brain[0], weight)


def check_equal(batch, weight):
    expected = sigpy_sense(batch, weight)
    image = CGSense(weight, iterations=60)(batch).image[0].numpy()
    assert np.linalg.norm(image - expected) < 1e-3 * np.linalg.norm(expected)


def test_cg_sense_defaults_have_converged(real_brain):
    batch, _ = real_brain
    method = CGSense()
    expected = sigpy_sense(batch, method.weight)
    image = method(batch).image[0].numpy()
    assert np.linalg.norm(image - expected) < 1e-3 * np.linalg.norm(expected)


def test_cg_sense_is_above_zero_filled(disc, decibel):
    batch, target = disc()
    zero_filled = decibel(ZeroFilled()(batch).image[0], target)
    assert decibel(CGSense(0.003)(batch).image[0], target) > zero_filled + 2
