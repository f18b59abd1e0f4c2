"""Summaries, intervals and paired tests of scores."""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mrisem.metrics.score import Better

SMALLEST_N = 6  # with fewer pairs no two-sided signed-rank test can reach p < 0.05
SMALLEST_CLUSTERS = 4  # fewer give only a handful of different resamples (3: ten)
_LEVEL, _RESAMPLES = 0.95, 2000


@dataclass(frozen=True)
class PairedTest:
    """Wilcoxon signed-rank test of a method against a reference on the same slices.

    Args:
        n: pairs in which both have a finite value.
        mean_difference: mean of method minus reference.
        p_value: two-sided; None with a ``reason`` when no test can be made.
        share_better: share of the pairs in which the method is strictly better.
        reason: why there is no p-value.
    """

    n: int
    mean_difference: float | None
    p_value: float | None
    share_better: float | None
    reason: str | None = None

    def as_row(self) -> dict[str, int | float | str | None]:
        """Return the fields, without an empty reason."""
        return {key: value for key, value in asdict(self).items() if key != "reason" or value}


def summarise(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> dict[str, float | int | None]:
    """Return mean, sample standard deviation, n and 95 % interval of the finite values.

    The standard deviation is None for fewer than two values; for ``clusters`` and the interval's
    ``low`` and ``high`` see `bootstrap_interval`.

    >>> summarise([1.0, 3.0, float("nan")])
    {'mean': 2.0, 'std': 1.4142135623730951, 'n': 2, 'low': None, 'high': None}
    """
    low, high = bootstrap_interval(values, clusters)
    finite = np.asarray([value for value in values if np.isfinite(value)], dtype=np.float64)
    return {
        "mean": float(finite.mean()) if finite.size else None,
        "std": float(finite.std(ddof=1)) if finite.size > 1 else None,
        "n": int(finite.size),
        "low": low,
        "high": high,
    }


def bootstrap_interval(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> tuple[float | None, float | None]:
    """Return the 95 % bootstrap interval (BCa) of the mean of the finite values.

    Clusters are drawn with replacement, each with all of its values, since slices of one volume
    are not independent: ``mean = sum_k s_k / sum_k m_k`` with the sum ``s_k`` and the number
    ``m_k`` of values of cluster k. From few clusters the interval is too narrow.
    Equal input gives equal intervals. Source: Efron 1987, by ``scipy.stats.bootstrap``.

    Args:
        values: scores.
        clusters: what each value belongs to, such as its file; or None, each to itself.

    Returns:
        low and high; both None for fewer than `SMALLEST_CLUSTERS` clusters.

    >>> bootstrap_interval([2.0, 2.0, 2.0, 2.0])
    (2.0, 2.0)
    """
    names = range(len(values)) if clusters is None else clusters
    members: dict[Hashable, list[float]] = {}
    for name, number in zip(names, values, strict=True):
        if np.isfinite(number):
            members.setdefault(name, []).append(float(number))
    if len(members) < SMALLEST_CLUSTERS:
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


def paired_test(values: Sequence[float], reference: Sequence[float], better: Better) -> PairedTest:
    """Compare a method's scores with a reference's of the same slices, in the same order.

    >>> paired_test([1.0, 2.0], [0.0, 0.0], "higher").reason
    'fewer than 6 pairs'
    """
    difference = np.asarray(values, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    difference = difference[np.isfinite(difference)]
    n = difference.size
    if n == 0:
        return PairedTest(0, None, None, None, "no pairs")
    sign = 1 if better == "higher" else -1
    mean, share = float(difference.mean()), float((sign * difference > 0).mean())
    if n < SMALLEST_N or not difference.any():
        reason = f"fewer than {SMALLEST_N} pairs" if n < SMALLEST_N else "all differences are zero"
        return PairedTest(n, mean, None, share, reason)
    from scipy.stats import wilcoxon

    return PairedTest(n, mean, float(wilcoxon(difference).pvalue), share)
