"""Summaries, confidence intervals and paired tests of scores, with subjects as the unit."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mrisem.metrics.score import Better

MIN_TESTED = 6  # subjects: with 5 the smallest two-sided p-value is 2 / 2^5, above 0.05
MIN_RESAMPLED = 4  # subjects: 3 have only ten different resamples
MAX_ENUMERATED = 20  # subjects: with more, signs are drawn at random instead of enumerated
_LEVEL, _RESAMPLES, _DRAWS = 0.95, 2000, 19_999


@dataclass(frozen=True)
class PairedTest:
    """Result of a paired test of a method against a reference over common subjects.

    Args:
        n_subjects: number of subjects with a pair of finite values.
        n_pairs: number of such pairs.
        mean_difference: mean over subjects of each subject's mean of method minus reference.
        p_value: two-sided p-value (`sign_flip_p`); None, with a ``reason``, without a test.
        share_better: share of the subjects in which the method is strictly better on average.
        reason: reason why there is no p-value.
    """

    n_subjects: int
    n_pairs: int
    mean_difference: float | None = None
    p_value: float | None = None
    share_better: float | None = None
    reason: str | None = None

    def as_row(self, counted: str = "slices") -> dict[str, int | float | str | None]:
        """Return the fields by name: ``n_pairs`` as ``n_<counted>``, no empty reason."""
        fields = {key: value for key, value in asdict(self).items() if key != "reason" or value}
        return {f"n_{counted}" if key == "n_pairs" else key: v for key, v in fields.items()}


def summarise(
    values: Sequence[float], subjects: Sequence[Hashable], counted: str = "slices"
) -> dict[str, float | int | None]:
    """Summarise the finite values: mean, sample standard deviation, counts and 95 % interval.

    The standard deviation is over all values, None for fewer than two. ``low`` and ``high`` are the
    interval of `bootstrap_interval`.

    Args:
        values: scores.
        subjects: subject of each value.
        counted: plural of what one value belongs to, for the name of the count.

    >>> summarise([1.0, 3.0, float("nan")], ["a", "a", "b"])["std"]
    1.4142135623730951
    >>> summarise([1.0, 3.0, 5.0], ["a", "a", "b"])
    {'mean': 3.0, 'std': 2.0, 'n_subjects': 2, 'n_slices': 3, 'low': None, 'high': None}
    """
    members = by_subject(values, subjects)
    finite = np.array([value for numbers in members.values() for value in numbers])
    low, high = bootstrap_interval(values, subjects)
    return {
        "mean": float(finite.mean()) if finite.size else None,
        "std": float(finite.std(ddof=1)) if finite.size > 1 else None,
        "n_subjects": len(members),
        f"n_{counted}": int(finite.size),
        "low": low,
        "high": high,
    }


def by_subject(
    values: Sequence[float], subjects: Sequence[Hashable]
) -> dict[Hashable, list[float]]:
    """Group the finite values by subject; subjects without any are left out.

    >>> by_subject([1.0, 2.0, 3.0, float("inf")], ["a", "b", "a", "c"])
    {'a': [1.0, 3.0], 'b': [2.0]}
    """
    members: dict[Hashable, list[float]] = {}
    for subject, value in zip(subjects, values, strict=True):
        if np.isfinite(value):
            members.setdefault(subject, []).append(float(value))
    return members


def bootstrap_interval(
    values: Sequence[float], subjects: Sequence[Hashable]
) -> tuple[float | None, float | None]:
    """Compute the 95 % bootstrap interval (BCa) of the mean of the finite values.

    Slices of one subject are not independent, so subjects are drawn with replacement, each with all
    of its values: ``mean = sum_k s_k / sum_k m_k`` with the sum ``s_k`` and the number ``m_k`` of
    values of subject k. With few subjects the interval is too narrow. The random draws have a fixed
    seed. Source: Efron, J Am Stat Assoc 82:171 (1987), by ``scipy.stats.bootstrap``.

    Args:
        values: scores.
        subjects: subject of each value.

    Returns:
        lower and upper limit; both None for fewer than `MIN_RESAMPLED` subjects.

    >>> bootstrap_interval([2.0, 2.0, 2.0, 2.0], ["a", "b", "c", "d"])
    (2.0, 2.0)
    """
    members = by_subject(values, subjects)
    if len(members) < MIN_RESAMPLED:
        return None, None
    sums = np.array([sum(numbers) for numbers in members.values()])
    counts = np.array([len(numbers) for numbers in members.values()])
    mean = float(sums.sum() / counts.sum())
    if np.allclose(sums / counts, mean, rtol=1e-12, atol=0):
        return mean, mean  # without variation BCa's acceleration constant would be 0 / 0
    from scipy.stats import bootstrap

    interval = bootstrap(
        (sums, counts),
        lambda total, count, axis: total.sum(axis) / count.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=_RESAMPLES,
        confidence_level=_LEVEL,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct the p-values of a family of tests by Holm's step-down procedure.

    For ``p_(1) <= ... <= p_(m)`` the corrected ``p_(i)`` is ``max_(j <= i) min(1, (m - j + 1)
    p_(j))``. The probability of at least one wrong rejection in the family stays below the level,
    whatever the dependence between the tests. Entries without a test (None) are not counted.
    Source: Holm, Scand J Stat 6:65 (1979).

    >>> holm([0.5, None, 0.125])
    [0.5, None, 0.25]
    """
    ascending = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(ascending):
        largest = max(largest, min(1.0, (len(ascending) - rank) * p))
        corrected[index] = largest
    return corrected


def paired_test(
    values: Sequence[float],
    reference: Sequence[float],
    subjects: Sequence[Hashable],
    better: Better,
) -> PairedTest:
    """Compare a method with a reference on the same slices by a test over subjects.

    Slices of one subject are not independent, so a test over slices would report noise as an
    effect. The differences are therefore averaged over each subject's slices before the test.

    Args:
        values: scores of the method.
        reference: scores of the reference, in the same order.
        subjects: subject of each pair.
        better: whether higher or lower values are better.

    >>> paired_test([1.0, 2.0], [0.0, 0.0], ["a", "b"], "higher").reason
    'fewer than 6 subjects'
    """
    differences = [value - other for value, other in zip(values, reference, strict=True)]
    members = by_subject(differences, subjects)
    n, n_pairs = len(members), sum(map(len, members.values()))
    if n == 0:
        return PairedTest(n, n_pairs, reason="no pairs")
    means = np.array([np.mean(numbers) for numbers in members.values()])
    sign = 1 if better == "higher" else -1
    mean, share = float(means.mean()), float((sign * means > 0).mean())
    if n < MIN_TESTED or not means.any():
        reason = f"fewer than {MIN_TESTED} subjects" if n < MIN_TESTED else "no difference"
        return PairedTest(n, n_pairs, mean, None, share, reason)
    return PairedTest(n, n_pairs, mean, sign_flip_p(means), share)


def sign_flip_p(differences: np.ndarray) -> float:
    """Compute the two-sided p-value of the hypothesis that two methods do not differ.

    Under the hypothesis each subject's difference ``d_i`` is as likely as ``-d_i``. The p-value is
    the share of the ``2^n`` choices of signs s with ``|sum_i s_i d_i| >= |sum_i d_i|``. It is exact
    for any n, and it tests the mean, which the tables show; a signed-rank test would test a rank
    sum. For more than `MAX_ENUMERATED` differences it is ``(b + 1) / (m + 1)``, where b of m random
    choices of signs reach the sum; these draws have a fixed seed. Source: Phipson & Smyth, Stat
    Appl Genet Mol Biol 9:39 (2010).

    Args:
        differences: ``(n,)``, one for each subject.

    >>> sign_flip_p(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])) == 2 / 2**6
    True
    """
    # the tolerance makes sums equal that differ only by rounding
    observed = np.abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    if len(differences) > MAX_ENUMERATED:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (_DRAWS, len(differences)))
        n_larger = int((np.abs(signs @ differences) >= observed).sum())
        return (n_larger + 1) / (_DRAWS + 1)
    # The first sign is fixed: reversing all signs does not change an absolute sum.
    sums = differences[:1]
    for difference in differences[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    return float((np.abs(sums) >= observed).mean())
