import pytest
import torch

from mrisem.physics.fourier import fft2c, ifft2c
from mrisem.physics.sense import Measurement, SenseOperator
from mrisem.types import Batch


def draw(generator, *shape):
    return torch.randn(shape, dtype=torch.complex128, generator=generator)


@pytest.fixture(params=["points", "columns", "columns of each slice", "all"])
def case(request):
    """Maps, mask and a generator, for masks of every kind and sides even and odd."""
    generator = torch.Generator().manual_seed(0)
    cases = []
    for y, x in [(5, 4), (6, 7), (8, 9), (12, 10)]:
        shape = {"points": (2, y, x), "columns": (1, 1, x), "columns of each slice": (2, 1, x)}
        share = 1.0 if request.param == "all" else 0.5
        mask = torch.rand(shape.get(request.param, (1, 1, 1)), generator=generator) < share
        cases.append((draw(generator, 2, 3, y, x), mask.expand(2, y, x).clone()))
    return cases, generator


@pytest.fixture(params=[2**21, 1])
def cache(request, monkeypatch):
    """How many coils are transformed at once: all of them, or each alone."""
    monkeypatch.setattr("mrisem.physics.coil_parts._CACHED_BYTES", request.param)


def test_sense_equals_its_formula_under_every_mask(case, cache):
    cases, generator = case
    for maps, mask in cases:
        n, coils, y, x = maps.shape
        sense, image = SenseOperator(maps, mask), draw(generator, n, y, x)
        kspace = draw(generator, n, coils, y, x)
        forward = mask[:, None] * fft2c(maps * image[:, None])
        adjoint = (maps.conj() * ifft2c(mask[:, None] * kspace)).sum(1)
        torch.testing.assert_close(sense.forward(image), forward)
        torch.testing.assert_close(sense.adjoint(kspace), adjoint)
        torch.testing.assert_close(
            sense.normal(image), (maps.conj() * ifft2c(forward)).sum(1), rtol=1e-9, atol=1e-12
        )


def test_sense_samples_are_the_entries_of_its_forward_that_a_mask_keeps(case):
    cases, generator = case
    for maps, mask in cases:
        sense, image = SenseOperator(maps, mask), draw(generator, *mask.shape)
        sampled, forward = sense.sample(image), sense.forward(image)
        torch.testing.assert_close(sampled, sense.samples(forward))
        torch.testing.assert_close(sampled.abs().sum(), forward.abs().sum())
        assert sampled.shape[-1] == mask.any(1).any(0).sum()


def test_sense_gradients_are_those_of_finite_differences(case):
    cases, generator = case
    maps, mask = cases[0]
    sense = SenseOperator(maps, mask)
    image = draw(generator, *mask.shape).requires_grad_()
    for function in (sense.forward, sense.normal, sense.sample):
        assert torch.autograd.gradcheck(function, image)
    assert torch.autograd.gradcheck(sense.adjoint, draw(generator, *maps.shape).requires_grad_())
    assert torch.autograd.gradgradcheck(sense.sample, image)


def test_sense_is_made_once_for_each_mask_of_a_batch():
    generator = torch.Generator().manual_seed(0)
    kspace, mask = draw(generator, 1, 2, 4, 4), torch.ones(1, 4, 4) > 0
    batch = Batch(kspace, mask, kspace, torch.ones(1), (4, 4), ())
    half = mask.clone()
    half[..., ::2] = False
    first, part = Measurement.of(batch), Measurement.of(batch, half)
    assert Measurement.of(batch) is first
    assert Measurement.of(batch, half) is part
    assert part.coils is first.coils
    assert batch.to("cpu").measurements == {}
    torch.testing.assert_close(part.measured, part.samples(kspace))
    torch.testing.assert_close(part.zero_filled, part.adjoint(half[:, None] * kspace))


@pytest.mark.parametrize("shape", [(1, 2, 4, 4), (2, 4, 4), (1, 5, 4), (1, 4, 3), (4, 4)])
def test_sense_refuses_a_mask_of_another_shape_such_as_one_with_a_coil_axis(shape):
    maps = torch.ones(1, 2, 4, 4, dtype=torch.complex64)
    with pytest.raises(ValueError, match="did you pass the coil axis"):
        SenseOperator(maps, torch.ones(shape) > 0)
