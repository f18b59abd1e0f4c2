import torch

from mrisem.tasks.safeguard import MAX_UNDONE, Safeguard


def fit(starts, gradient, steps, rate=0.1):
    """Fit one number a slice; the loss of a slice is not finite above 1 (NaN starts never are)."""
    weights = [torch.nn.Parameter(torch.tensor([start])) for start in starts]
    groups = [[{"params": [weight]}] for weight in weights]
    adam = torch.optim.Adam([group for own in groups for group in own], lr=rate)
    guard = Safeguard(adam, groups)
    for _ in range(steps):
        guard.check(torch.tensor([bool(w <= 1) for w in weights]))
        if guard.all_given_up:
            break
        for weight in weights:
            weight.grad = torch.tensor([gradient])
        guard.step()
    return [float(w.detach()) for w in weights], guard, adam


def test_finite_steps_are_those_of_adam():
    weight = torch.nn.Parameter(torch.tensor([0.0]))
    adam = torch.optim.Adam([weight], lr=0.1)
    for _ in range(5):
        weight.grad = torch.tensor([0.3])
        adam.step()
    values, guard, _ = fit([0.0], 0.3, 5)
    assert values == [float(weight.detach())]
    assert not guard.given_up


def test_a_bad_step_is_undone_and_the_rate_halved_for_its_slice_alone():
    values, guard, adam = fit([0.95, -5.0], -1.0, 3)  # up by 0.1 a step
    assert 0.99 < values[0] <= 1
    assert abs(values[1] - -4.7) < 1e-5
    assert [group["lr"] for group in adam.param_groups] == [0.05, 0.1]
    assert not guard.given_up


def test_a_slice_is_given_up_at_its_last_good_weights():
    values, guard, _ = fit([1.0, -5.0], -1.0, 3 * MAX_UNDONE)
    assert guard.given_up == {0}
    assert values[0] == 1.0
    assert abs(values[1] - (-5 + 0.1 * 3 * MAX_UNDONE)) < 1e-3


def test_a_start_that_is_not_finite_is_given_up():
    _, guard, _ = fit([float("nan")], -1.0, 100)
    assert guard.all_given_up
