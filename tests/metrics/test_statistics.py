"""Summaries and paired tests."""

from itertools import product

import numpy as np
import pytest

from mrisem.metrics.statistics import paired_test, summarise


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
    assert summarise([float("inf"), 2.0, float("nan")]) == {"mean": 2.0, "std": None, "n": 1}
    assert summarise([]) == {"mean": None, "std": None, "n": 0}
