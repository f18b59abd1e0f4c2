import pytest
import torch

from mrisem.physics.sense import SenseOperator


def make_operator(dtype=torch.complex128, shape=(2, 3, 7, 6)):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(shape, dtype=dtype, generator=generator)
    mask = torch.rand(shape[0], *shape[2:], generator=generator) < 0.5
    return SenseOperator(maps, mask), generator


def test_sense_adjoint_satisfies_inner_products():
    sense, generator = make_operator()
    x = torch.randn(2, 7, 6, dtype=torch.complex128, generator=generator)
    y = torch.randn(2, 3, 7, 6, dtype=torch.complex128, generator=generator)
    torch.testing.assert_close(
        torch.vdot(sense.forward(x).flatten(), y.flatten()),
        torch.vdot(x.flatten(), sense.adjoint(y).flatten()),
    )


def test_sense_normal_is_adjoint_of_forward():
    sense, generator = make_operator()
    x = torch.randn(2, 7, 6, dtype=torch.complex128, generator=generator)
    torch.testing.assert_close(sense.normal(x), sense.adjoint(sense.forward(x)))


@pytest.mark.parametrize("shape", [(1, 2, 4, 4), (2, 4, 4), (1, 5, 4), (1, 4, 3), (4, 4)])
def test_sense_refuses_a_mask_of_another_shape_such_as_one_with_a_coil_axis(shape):
    maps = torch.ones(1, 2, 4, 4, dtype=torch.complex64)
    with pytest.raises(ValueError, match="did you pass the coil axis"):
        SenseOperator(maps, torch.ones(shape) > 0)
