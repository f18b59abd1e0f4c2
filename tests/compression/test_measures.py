import pytest
import torch

from mrisem.compression.compression import loss_gradient
from mrisem.compression.measures import agreement, seconds
from mrisem.prior.image.perceptual import load_perceptual


def test_a_teacher_agrees_with_itself_and_less_with_another(teacher, slices):
    perfect = agreement(teacher, teacher, [5], slices)
    assert [*perfect] == ["tokens", "gradients", "teacher", "own"]
    assert perfect["tokens"] == pytest.approx(1, abs=1e-5)
    assert perfect["gradients"] == pytest.approx(1, abs=1e-5)
    assert perfect["teacher"] == perfect["own"]
    other = load_perceptual("alexnet", [2], 4, random_seed=1, dtype="float32")
    changed = type(teacher)(other, teacher.bank, [1.0])
    found = agreement(teacher, changed, [5], slices)
    assert max(found["tokens"], found["gradients"]) < 0.9
    assert found["teacher"] == perfect["teacher"] != found["own"]


def test_gradient_is_the_losses_slope(teacher, slices):
    """A difference quotient along the gradient."""
    image = torch.stack([slices[0][0], slices[0][1]])
    gradient = loss_gradient(teacher, image)
    direction = 1e-3 * gradient / gradient.norm()
    rise = [teacher.losses(image + sign * direction)["semantic"].sum() for sign in (1, -1)]
    torch.testing.assert_close(gradient.norm(), (rise[0] - rise[1]) / 2e-3, rtol=0.03, atol=0)


def test_seconds_are_the_median_of_the_turns_after_the_first(monkeypatch):
    """By a clock that only the encoders move."""
    clock = [0.0]
    monkeypatch.setattr("mrisem.compression.measures.time.process_time", lambda: clock[0])

    class Work(torch.nn.Module):
        def __init__(self, *spent):
            super().__init__()
            self.spent = iter(spent)

        def forward(self, image):
            clock[0] += next(self.spent)
            return (image,)

    encoders = [Work(100, 7, 2, 3), Work(50, 1, 9, 4)]
    assert seconds(encoders, torch.ones(1, 4, 4), repeats=3) == [3, 4]
