"""Summaries and paired tests of scores."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mrisem.metrics.score import Better

SMALLEST_N = 6  # with fewer pairs no two-sided signed-rank test can reach p < 0.05


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


def summarise(values: Sequence[float]) -> dict[str, float | int | None]:
    """Return mean, sample standard deviation (None for fewer than two) and n of the finite values.

    >>> summarise([1.0, 3.0, float("nan")])
    {'mean': 2.0, 'std': 1.4142135623730951, 'n': 2}
    """
    finite = np.asarray([value for value in values if np.isfinite(value)], dtype=np.float64)
    return {
        "mean": float(finite.mean()) if finite.size else None,
        "std": float(finite.std(ddof=1)) if finite.size > 1 else None,
        "n": int(finite.size),
    }


def paired_test(values: Sequence[float], reference: Sequence[float], better: Better) -> PairedTest:
    """Compare two methods slice by slice.

    Args:
        values: the method's scores.
        reference: the reference's scores of the same slices, in the same order.
        better: direction of better scores.

    >>> paired_test([1.0, 2.0], [0.0, 0.0], "higher").reason
    'fewer than 6 pairs'
    """
    difference = np.asarray(values, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    difference = difference[np.isfinite(difference)]
    if difference.size == 0:
        return PairedTest(0, None, None, None, "no pairs")
    sign = 1 if better == "higher" else -1
    mean, share = float(difference.mean()), float((sign * difference > 0).mean())
    if difference.size < SMALLEST_N:
        return PairedTest(difference.size, mean, None, share, f"fewer than {SMALLEST_N} pairs")
    if not difference.any():
        return PairedTest(difference.size, mean, None, share, "all differences are zero")
    from scipy.stats import wilcoxon

    return PairedTest(difference.size, mean, float(wilcoxon(difference).pvalue), share)
