"""Summaries and paired tests, of which the unit is the subject."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import permutation_test

from mrisem.metrics.statistics import (
    MAX_ENUMERATED,
    bootstrap_interval,
    holm,
    paired_test,
    sign_flip_p,
    summarise,
)


def test_paired_test_equals_the_exact_enumeration_of_the_subjects_signs():
    means = np.array([0.5, -0.1, 0.9, 1.3, 0.2, 0.7, -0.3])
    difference = np.concatenate([means - 0.2, means + 0.2, means])  # three slices a subject
    sums = [abs(np.dot(signs, means)) for signs in product([-1, 1], repeat=7)]
    expected = np.mean([s >= abs(means.sum()) - 1e-9 for s in sums])
    test = paired_test(difference + 2, np.full(21, 2.0), [*range(7)] * 3, "higher")
    assert test.p_value == pytest.approx(expected)
    assert test.as_row() | {"n_subjects": 7, "n_slices": 21} == test.as_row()
    assert test.mean_difference == pytest.approx(means.mean())
    assert test.share_better == pytest.approx(5 / 7)
    worse = paired_test(means, np.zeros(7), range(7), "lower")
    assert worse.share_better == pytest.approx(2 / 7)


def test_paired_test_weighs_subjects_equally_whatever_their_slices():
    values, subjects = [1.0] * 9 + [-1.0] * 5, ["a"] * 9 + list("bcdef")
    test = paired_test(values, [0.0] * 14, subjects, "higher")
    assert test.mean_difference == pytest.approx(-4 / 6)
    assert (test.n_subjects, test.n_pairs) == (6, 14)
    assert test.share_better == pytest.approx(1 / 6)


@pytest.mark.parametrize("n", [6, 9, MAX_ENUMERATED + 5])
def test_sign_flip_equals_scipys_permutation_test(n):
    differences = np.random.default_rng(n).normal(0.4, 1, n)
    exact = n <= MAX_ENUMERATED
    drawn = {"n_resamples": np.inf if exact else 20_000, "rng": np.random.default_rng(1)}
    theirs = permutation_test(
        (differences,), np.mean, permutation_type="samples", vectorized=True, batch=4000, **drawn
    )
    assert sign_flip_p(differences) == pytest.approx(theirs.pvalue, abs=1e-9 if exact else 0.01)
    assert sign_flip_p(differences) == sign_flip_p(-differences)


def test_sign_flip_counts_ties_in_spite_of_rounding_and_is_never_zero():
    assert sign_flip_p(np.array([0.1, 0.2, 0.3, -0.1, -0.2, -0.3])) == 1
    assert sign_flip_p(np.ones(50)) == 1 / 20_000


def test_a_true_null_is_rejected_in_one_case_of_twenty_over_subjects_and_not_over_slices():
    rng = np.random.default_rng(0)
    n_repetitions, n_subjects, n_slices = 400, 10, 4
    subjects = np.repeat(np.arange(n_subjects), n_slices)
    rejected = {"subjects": 0, "slices": 0}
    for _ in range(n_repetitions):
        # slices of a subject share most of what the two methods differ by in it
        shared = rng.normal(size=n_subjects)[subjects]
        scores = shared + 0.5 * rng.normal(size=len(subjects))
        for unit, names in (("subjects", subjects), ("slices", range(len(subjects)))):
            test = paired_test(scores, np.zeros(len(scores)), list(names), "higher")
            rejected[unit] += test.p_value < 0.05
    assert 0.02 <= rejected["subjects"] / n_repetitions <= 0.08
    assert rejected["slices"] / n_repetitions > 0.25  # why slices are not the unit


@pytest.mark.parametrize(
    ("values", "subjects", "reason"),
    [
        ([1.0] * 20, "abcde" * 4, "fewer than 6 subjects"),
        ([0.0] * 8, "abcdefgh", "no difference"),
        ([float("nan")], "a", "no pairs"),
    ],
)
def test_paired_test_says_why_there_is_no_p_value(values, subjects, reason):
    test = paired_test(values, [0.0] * len(values), subjects, "higher")
    assert test.p_value is None
    assert test.as_row()["reason"] == reason


def test_summarise_leaves_out_what_is_not_finite():
    no_interval = {"low": None, "high": None}
    finite = summarise([float("inf"), 2.0, float("nan")], "abc", "lesions")
    assert finite == {"mean": 2.0, "std": None, "n_subjects": 1, "n_lesions": 1} | no_interval
    assert (
        summarise([], [])
        == {
            "mean": None,
            "std": None,
            "n_subjects": 0,
            "n_slices": 0,
        }
        | no_interval
    )


def test_bootstrap_interval_of_many_values_equals_the_normal_one():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    half = 1.96 * values.std(ddof=1) / np.sqrt(400)
    low, high = bootstrap_interval(values, range(400))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert bootstrap_interval(values, range(400)) == (low, high)


def test_bootstrap_interval_resamples_subjects_whole():
    centres = np.random.default_rng(1).normal(size=40)
    values, subjects = np.repeat(centres, 9), np.repeat(np.arange(40), 9)
    # nine copies of a value say no more than one
    low, high = bootstrap_interval(values, subjects)
    assert (low, high) == pytest.approx(bootstrap_interval(centres, range(40)))
    narrow = bootstrap_interval(values, range(360))
    assert narrow[1] - narrow[0] == pytest.approx((high - low) / 3, rel=0.15)


def test_bootstrap_interval_weighs_subjects_by_their_values():
    values, subjects = [0.0] * 30 + [1.0, 2.0, 3.0], ["a"] * 30 + ["b", "c", "d"]
    low, high = bootstrap_interval(values, subjects)
    assert 0 <= low < np.mean(values) < high <= 3


def test_bootstrap_interval_needs_subjects_and_takes_equal_values():
    assert bootstrap_interval(np.arange(30.0), "abc" * 10) == (None, None)
    assert bootstrap_interval([1.0, 2.0, 3.0, float("nan")], "abcd") == (None, None)
    assert bootstrap_interval([0.1] * 7, "abcdefg") == pytest.approx((0.1, 0.1))


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
