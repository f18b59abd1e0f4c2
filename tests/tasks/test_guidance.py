import math

import pytest
import torch

from mrisem.physics.sense import Measurement, SenseOperator
from mrisem.tasks.curves import FitCurves
from mrisem.tasks.guidance import Guidance, Steering
from mrisem.types import Batch, SliceInfo


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 12, 8, dtype=torch.complex64, generator=generator)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    mask = torch.zeros(2, 12, 8, dtype=torch.bool)
    mask[:, :, ::2] = True
    info = tuple(SliceInfo("a.h5", i, 2, "AXT2", "s", 2.0) for i in range(2))
    return Batch(torch.zeros_like(maps), mask, maps, torch.ones(2), (6, 8), info)


@pytest.fixture
def image():
    return torch.randn(2, 12, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def push(batch, squared_magnitude):
    """Evaluate fresh guidance once at an image, beside a data gradient of ones."""

    def evaluate(image, iteration=0, **steering):
        guidance = Guidance(squared_magnitude, batch, Steering(**steering))
        values, (gradient,) = guidance([image], [torch.ones_like(image)], iteration)
        return values, gradient

    return evaluate


def test_guidance_gradient_equals_autograd_through_the_whole(batch, image, push):
    _, gradient = push(image, weight=0.5)
    leaf = image.clone().requires_grad_()
    (0.5 * leaf[:, 3:9].abs().square().sum()).backward()
    torch.testing.assert_close(gradient, leaf.grad)


def test_guidance_balance_limits_the_ratio_of_norms(batch, image, push):
    values, gradient = push(image, balance=0.1, weight=math.inf)
    ratio = gradient.flatten(1).norm(dim=1) / torch.ones_like(image).flatten(1).norm(dim=1)
    torch.testing.assert_close(ratio, torch.full((2,), 0.1))
    torch.testing.assert_close(values["gradient_balance"], ratio)


def test_guidance_weight_counts_below_the_limit_of_the_balance(batch, image, push):
    values, gradient = push(image, balance=0.1, weight=1e-3)
    torch.testing.assert_close(gradient, push(image, weight=1e-3)[1])
    assert values["gradient_balance"].max() < 0.1


def test_guidance_of_several_images_counts_their_gradients_together(
    batch, image, squared_magnitude
):
    steering = Steering(balance=0.1, weight=math.inf)
    images, data = [image, 2 * image], [torch.ones_like(image), torch.zeros_like(image)]
    values, pushes = Guidance(squared_magnitude, batch, steering)(images, data, 0)
    torch.testing.assert_close(pushes[1], 2 * pushes[0])  # one weight for both
    norm = torch.stack(pushes, dim=1).flatten(1).norm(dim=1)
    torch.testing.assert_close(norm, 0.1 * data[0].flatten(1).norm(dim=1))
    torch.testing.assert_close(values["gradient_balance"], torch.full((2,), 0.1))


def test_guidance_balance_is_smoothed(batch, image, squared_magnitude):
    guidance = Guidance(squared_magnitude, batch, Steering(weight=math.inf, balance=0.1))
    data = torch.ones_like(image)
    guidance([image], [data], 0)
    values, _ = guidance([image], [5 * data], 1)  # five times the limit: a tenth of the step
    expected = torch.full((2,), 0.1 * (0.9 + 0.1 * 5) / 5)
    torch.testing.assert_close(values["gradient_balance"], expected)


def test_guidance_balance_does_not_overshoot_when_a_loss_wakes_up(batch, image, squared_magnitude):
    guidance = Guidance(squared_magnitude, batch, Steering(weight=math.inf, balance=0.1))
    data = torch.ones_like(image)
    for _ in range(5):
        guidance([1e-6 * image], [data], 0)  # a gradient near zero asks for a weight of millions
    values, _ = guidance([image], [data], 1)
    assert values["gradient_balance"].max() <= 0.1 * (1 + 1e-5)


def test_guidance_is_silent_before_it_starts(batch, image, push):
    values, gradient = push(image, iteration=4, start_iteration=5)
    assert values == {}
    assert not gradient.any()
    assert push(image, iteration=5, start_iteration=5)[1].any()


def test_guidance_unmeasured_only_keeps_out_of_measured_kspace(batch, image, push):
    _, plain = push(image, weight=1.0)
    _, gradient = push(image, weight=1.0, unmeasured_only=True)
    sense = Measurement.of(batch)
    rest = SenseOperator(batch.sensitivity_maps, ~batch.mask)
    torch.testing.assert_close(gradient, rest.normal(plain), atol=1e-5, rtol=1e-4)
    assert sense.forward(gradient).norm() < 0.7 * sense.forward(plain).norm()


def test_curves_of_final_images_hold_the_loss_similarities_to_both_sides(
    batch, image, squared_magnitude
):
    class Sided(type(squared_magnitude)):
        def losses(self, magnitude, iteration=0):
            assert not torch.is_grad_enabled()
            mean = magnitude.mean((1, 2))
            return {"semantic": mean, "positives_1": 2 * mean, "negatives_1": -mean}

    curves = FitCurves()
    curves.add_image(Guidance(Sided(), batch, Steering()), 7, image, final=True)
    assert {row[3] for row in curves.rows} == {"positives_1", "negatives_1"}
    rows = image.shape[-2] // 2 - batch.crop[0] // 2
    mean = image[:, rows : rows + batch.crop[0]].abs().mean((1, 2))
    values = [row[4] for row in curves.rows if row[3] == "positives_1"]
    torch.testing.assert_close(torch.tensor(values), 2 * mean)
    assert [iteration for iteration, _ in curves.paths] == [7]
    assert curves.zero_filled["1"].shape == (2, 3)


def test_guidance_every_few_iterations_keeps_the_gradient_between(batch, image, squared_magnitude):
    steering = Steering(weight=0.5, start_iteration=1, every=2)
    guidance, ones = Guidance(squared_magnitude, batch, steering), [torch.ones_like(image)]
    pushes, names = [], []
    for iteration in range(5):
        values, (push,) = guidance([(iteration + 1) * image], ones, iteration)
        pushes.append(push)
        names.append(set(values))
    assert not pushes[0].any()
    torch.testing.assert_close(pushes[3], 2 * pushes[1])  # evaluated at 2 and at 4 times the image
    assert torch.equal(pushes[2], pushes[1])
    assert torch.equal(pushes[4], pushes[3])
    assert "semantic" in names[1]
    assert names[2] == {"gradient_balance"}


def test_guidance_does_not_keep_a_gradient_that_is_not_finite(batch, image, squared_magnitude):
    guidance = Guidance(squared_magnitude, batch, Steering(weight=0.5, every=2))
    ones, broken = [torch.ones_like(image)], image.clone()
    broken[1] = torch.nan
    _, (first,) = guidance([image], ones, 0)
    guidance([broken], ones, 2)
    _, (kept,) = guidance([image], ones, 3)
    assert torch.equal(kept, first)
