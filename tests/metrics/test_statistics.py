"""Summaries and paired tests."""

from itertools import product

import numpy as np
import pytest

from mrisem.metrics.statistics import bootstrap_interval, holm, paired_test, summarise


def test_paired_test_equals_the_exact_enumeration_of_signs():
    difference = np.array([0.5, -0.1, 0.9, 1.3, 0.2, 0.7, -0.3])
    ranks = np.abs(difference).argsort().argsort() + 1
    observed = ranks[difference > 0].sum()
    sums = [np.dot(signs, ranks) for signs in product([0, 1], repeat=7)]
    tail = np.mean([s >= max(observed, 28 - observed) for s in sums])
    test = paired_test(difference + 2, np.full(7, 2.0), "higher")
    assert test.p_value == pytest.approx(2 * tail)
    assert test.n == 7
    assert test.mean_difference == pytest.approx(difference.mean())
    assert test.share_better == pytest.approx(5 / 7)
    assert paired_test(difference, np.zeros(7), "lower").share_better == pytest.approx(2 / 7)


@pytest.mark.parametrize(
    ("values", "reason"),
    [([1.0] * 5, "fewer than 6 pairs"), ([0.0] * 8, "all differences are zero"), ([], "no pairs")],
)
def test_paired_test_says_why_there_is_no_p_value(values, reason):
    test = paired_test(values, [0.0] * len(values), "higher")
    assert test.p_value is None
    assert test.as_row()["reason"] == reason


def test_summarise_leaves_out_what_is_not_finite():
    no_interval = {"low": None, "high": None}
    known = summarise([float("inf"), 2.0, float("nan")])
    assert known == {"mean": 2.0, "std": None, "n": 1} | no_interval
    assert summarise([]) == {"mean": None, "std": None, "n": 0} | no_interval


def test_bootstrap_interval_of_many_values_equals_the_normal_one():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    half = 1.96 * values.std(ddof=1) / np.sqrt(400)
    low, high = bootstrap_interval(values)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert bootstrap_interval(values) == (low, high)


def test_bootstrap_interval_resamples_clusters_whole():
    centres = np.random.default_rng(1).normal(size=40)
    values, clusters = np.repeat(centres, 9), np.repeat(np.arange(40), 9)
    # nine copies of a value say no more than one
    low, high = bootstrap_interval(values, clusters=clusters)
    assert (low, high) == pytest.approx(bootstrap_interval(centres))
    narrow = bootstrap_interval(values)
    assert narrow[1] - narrow[0] == pytest.approx((high - low) / 3, rel=0.15)


def test_bootstrap_interval_weighs_clusters_by_their_values():
    values, clusters = [0.0] * 30 + [1.0, 2.0, 3.0], ["a"] * 30 + ["b", "c", "d"]
    low, high = bootstrap_interval(values, clusters=clusters)
    assert 0 <= low < np.mean(values) < high <= 3


def test_bootstrap_interval_needs_clusters_and_takes_equal_values():
    assert bootstrap_interval(np.arange(30.0), clusters=["a", "b", "c"] * 10) == (None, None)
    assert bootstrap_interval([1.0, 2.0, 3.0, float("nan")]) == (None, None)
    assert bootstrap_interval([0.1] * 7) == pytest.approx((0.1, 0.1))


def test_holm_equals_the_definition_by_stepping_down():
    p = np.random.default_rng(2).random(9) ** 4
    corrected = holm(p.tolist())
    for level in np.linspace(0.001, 0.999, 400):
        # Holm: reject in ascending order while p_(i) <= level / (m - i + 1), then stop.
        rejected = set()
        for rank, index in enumerate(p.argsort()):
            if p[index] > level / (9 - rank):
                break
            rejected.add(int(index))
        assert rejected == {i for i, value in enumerate(corrected) if value <= level}


def test_holm_of_a_known_example_and_without_tests():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.7, 0.6]) == [None, 1.0, 1.0]
    assert holm([]) == []
