import pytest
import torch
from torch import nn

from mrisem.tasks.weights import MAX_UNDONE, Best, SliceWeights
from mrisem.types import Reconstruction


class Numbers(nn.Module):
    """Some numbers a slice; what they make does not matter here."""

    def __init__(self, starts):
        super().__init__()
        self.first = nn.Parameter(torch.tensor(starts)[:, None])
        self.second = nn.Parameter(torch.ones(len(starts), 2, 3))

    def forward(self, batch, mask):
        return Reconstruction(self.first * self.second.sum())


def fit(starts, gradient, steps, rate=0.1):
    """Fit one number a slice; the loss of a slice is not finite above 1 (NaN starts never are)."""
    network = Numbers(starts)
    weights = SliceWeights(network, rate, 1000, lambda n: [{"params": [n.first]}])
    for _ in range(steps):
        weights.check((weights.leaf <= 1).all(1))
        if weights.given_up.all():
            break
        weights.step(torch.full_like(weights.leaf, gradient))
    weights.keep()
    return network.first.flatten().tolist(), weights


@pytest.mark.parametrize("halve_every", [1000, 3])
def test_steps_are_those_of_torch_adam(halve_every):
    network, generator = Numbers([0.2, -0.4]), torch.Generator().manual_seed(0)
    groups = [{"params": [network.first], "lr": 0.3}, {"params": [network.second]}]
    weights = SliceWeights(network, 0.01, halve_every, lambda _: groups)
    same = Numbers([0.2, -0.4])
    adam = torch.optim.Adam([{"params": [same.first], "lr": 0.3}, {"params": [same.second]}], 0.01)
    schedule = torch.optim.lr_scheduler.StepLR(adam, halve_every, gamma=0.5)
    for _ in range(8):
        gradient = torch.randn(2, 7, generator=generator)
        same.first.grad, same.second.grad = gradient[:, :1], gradient[:, 1:].reshape(2, 2, 3)
        weights.check(torch.ones(2) > 0)
        weights.step(gradient)
        adam.step()
        schedule.step()
    weights.keep()
    torch.testing.assert_close(network.first, same.first)
    torch.testing.assert_close(network.second, same.second)


def test_the_network_is_applied_with_the_present_weights():
    network = Numbers([2.0, 3.0])
    weights = SliceWeights(network, 1.0, 1000, lambda n: [{"params": [n.first]}])
    assert weights(None, None).image.flatten().tolist() == [24.0, 36.0]
    weights.check(torch.ones(2) > 0)
    weights.step(torch.tensor([[-1.0], [0.0]]))
    assert weights(None, None).image.flatten().tolist() == [36.0, 36.0]
    assert network.first.flatten().tolist() == [2.0, 3.0]  # until they are kept


def test_a_bad_step_is_undone_and_the_rate_halved_for_its_slice_alone():
    values, weights = fit([0.95, -5.0], -1.0, 3)  # up by 0.1 a step
    assert 0.99 < values[0] <= 1
    assert abs(values[1] - -4.7) < 1e-5
    assert not weights.given_up.any()


def test_a_slice_is_given_up_at_its_last_good_weights():
    values, weights = fit([1.0, -5.0], -1.0, 3 * MAX_UNDONE)
    assert weights.given_up.tolist() == [True, False]
    assert values[0] == 1.0
    assert abs(values[1] - (-5 + 0.1 * 3 * MAX_UNDONE)) < 1e-3


def test_a_start_that_is_not_finite_is_given_up():
    assert fit([float("nan")], -1.0, 100)[1].given_up.all()


def test_best_keeps_the_lowest_and_ignores_a_slice_that_is_done():
    best = Best(torch.full((2, 1), 7.0), patience=2)
    for step, losses in enumerate([(3, 3), (2, 4), (4, 4), (5, 0), (6, 1)]):
        best.update(torch.tensor(losses, dtype=torch.float32), torch.full((2, 1), float(step)))
    assert best.done.all()
    assert best.weights.flatten().tolist() == [1, 0]
