"""Summaries, intervals and paired tests of scores; the unit of both is the subject."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mrisem.metrics.score import Better

MIN_TESTED = 6  # subjects: with fewer no two-sided sign-flip test reaches p < 0.05 (2 / 2^5)
MIN_RESAMPLED = 4  # subjects: fewer give only a handful of different resamples (3: ten)
MAX_ENUMERATED = 20  # subjects: with more, signs are drawn
_LEVEL, _RESAMPLES, _DRAWS = 0.95, 2000, 19_999


@dataclass(frozen=True)
class PairedTest:
    """Test of a method against a reference over the subjects that both have.

    Args:
        n_subjects: subjects with a pair in which both values are finite.
        n_pairs: those pairs.
        mean_difference: mean over subjects of each subject's mean of method minus reference.
        p_value: two-sided (`sign_flip_p`); None with a ``reason`` when no test can be made.
        share_better: share of the subjects in which the method is strictly better on average.
        reason: why there is no p-value.
    """

    n_subjects: int
    n_pairs: int
    mean_difference: float | None = None
    p_value: float | None = None
    share_better: float | None = None
    reason: str | None = None

    def as_row(self, counted: str = "slices") -> dict[str, int | float | str | None]:
        """Return the fields, without an empty reason; the pairs as ``n_<counted>``."""
        fields = {key: value for key, value in asdict(self).items() if key != "reason" or value}
        return {f"n_{counted}" if key == "n_pairs" else key: v for key, v in fields.items()}


def summarise(
    values: Sequence[float], subjects: Sequence[Hashable], counted: str = "slices"
) -> dict[str, float | int | None]:
    """Return mean, sample standard deviation, counts and 95 % interval of the finite values.

    The standard deviation is over values, and None for fewer than two; the interval's ``low`` and
    ``high`` are those of `bootstrap_interval`.

    Args:
        values: scores.
        subjects: the subject of each value.
        counted: what a value is of.

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
    """Return the finite values of each subject that has some.

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
    """Return the 95 % bootstrap interval (BCa) of the mean of the finite values.

    Subjects are drawn with replacement, each with all of its values, since slices of one subject
    are not independent: ``mean = sum_k s_k / sum_k m_k`` with the sum ``s_k`` and the number
    ``m_k`` of values of subject k. From few subjects the interval is too narrow.
    Equal input gives equal intervals. Source: Efron 1987, by ``scipy.stats.bootstrap``.

    Args:
        values: scores.
        subjects: the subject of each value.

    Returns:
        low and high; both None for fewer than `MIN_RESAMPLED` subjects.

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
        return mean, mean  # the acceleration would be 0 / 0
    from scipy.stats import bootstrap

    interval = bootstrap(
        (sums, counts),
        lambda s, m, axis: s.sum(axis) / m.sum(axis),
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

    With ``p_(1) <= ... <= p_(m)``: ``max_(j <= i) min(1, (m - j + 1) p_(j))``. The chance of one
    wrong rejection or more in the family stays below the level, however the tests depend on each
    other. None, where no test could be made, does not count. Source: Holm 1979.

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
    """Compare a method with a reference on the same slices, over the subjects.

    Slices of one subject are not independent, and a test over slices takes noise for an effect.
    So the differences are averaged over each subject's slices first, and the test is of the means.

    Args:
        values: scores of the method.
        reference: scores of the reference, in the same order.
        subjects: the subject of each pair.
        better: which values are.

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
    """Return the two-sided p-value of independent differences with the mean zero.

    Where two methods are alike, each subject's difference ``d_i`` is as likely as ``-d_i``. Then
    the p-value is the share of the ``2^n`` choices of signs with ``|sum_i s_i d_i|`` as large as
    ``|sum_i d_i|`` or larger. It is exact for any n, and it tests the mean, which the tables show;
    the signed-rank test would test a rank sum. For more than `MAX_ENUMERATED` differences it is
    ``(b + 1) / (m + 1)``, where b of m random choices of signs are as large; equal input gives
    equal p-values. Source: Phipson and Smyth 2010.

    Args:
        differences: ``(n,)``, one a subject.

    >>> sign_flip_p(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])) == 2 / 2**6
    True
    """
    # sums that are equal but for rounding count as equal
    limit = np.abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    if len(differences) > MAX_ENUMERATED:
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (_DRAWS, len(differences)))
        n_larger = int((np.abs(signs @ differences) >= limit).sum())
        return (n_larger + 1) / (_DRAWS + 1)
    sums = differences[:1]  # the first sign is kept: turning all signs changes no absolute sum
    for difference in differences[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    return float((np.abs(sums) >= limit).mean())
