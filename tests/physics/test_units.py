import numpy as np
import pytest
import torch

from mrisem.physics.units import binary_exponent, common_unit, exponent_of, shift_exponent

BASE = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)


@pytest.mark.parametrize("power", [-140, -66, -1, 0, 3, 66, 120])
def test_exponent_brings_the_largest_part_to_between_a_half_and_one(power):
    values = torch.from_numpy(BASE * 2.0**power)
    for tensor in (values, torch.complex(torch.zeros_like(values), values)):
        scaled = shift_exponent(tensor, -exponent_of(tensor))
        assert 0.5 <= float(scaled.abs().max()) < 1


@pytest.mark.parametrize("power", [-100, -66, 66, 100])
def test_shifting_there_and_back_keeps_every_bit(power):
    values = torch.from_numpy(BASE)
    assert torch.equal(shift_exponent(shift_exponent(values, power), -power), values)


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_exponent_of_what_has_none_is_zero(value):
    assert binary_exponent(value) == 0
    assert exponent_of(torch.full((2, 2), value)) == 0
    assert exponent_of(torch.empty(0, 2)) == 0


def test_common_unit_is_the_targets_and_where_that_is_empty_the_reconstructions():
    image, target, exponent = common_unit(4 * BASE, BASE)
    assert 0.5 <= np.abs(target).max() < 1
    np.testing.assert_array_equal(image, 4 * target)
    np.testing.assert_array_equal(np.ldexp(BASE, exponent), target)
    image, target, _ = common_unit(BASE, np.zeros_like(BASE))
    assert 0.5 <= np.abs(image).max() < 1
    assert not target.any()
    assert common_unit(BASE[:0], BASE[:0])[2] == 0
