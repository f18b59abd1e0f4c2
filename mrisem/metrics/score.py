"""Definition of a score: a function of one slice, with its label and direction.

Every such function takes the reconstruction ``x`` and the target ``t``, two ``(y, x)`` float32
magnitudes in the same unit, and ``data_range``, the maximum of the target **volume**. It returns
the score, or None where the score is not defined (the cell in the table stays empty).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Literal, TypeVar

import numpy as np

Better = Literal["higher", "lower"]
R = TypeVar("R", bound=float | None)
SliceFunction = Callable[[np.ndarray, np.ndarray, float], float | None]


def any_unit(function: Callable[[np.ndarray, np.ndarray, float], R]) -> Callable[..., R]:
    """Make a score of one slice independent of the unit of the images.

    All three arguments are scaled by one power of two that brings the target's maximum to about 1.
    Squares of float32 then stay within its range, and no bit of the result changes.
    """

    @wraps(function)
    def score_of_scaled(
        reconstruction: np.ndarray, target: np.ndarray, data_range: float = 1.0
    ) -> R:
        from mrisem.physics.units import (
            common_unit,
        )  # imports torch, which tables of scores do without

        reconstruction, target, exponent = common_unit(reconstruction, target)
        return function(reconstruction, target, float(np.ldexp(data_range, exponent)))

    return score_of_scaled


@dataclass(frozen=True)
class Score:
    """One column of ``metrics.csv``.

    Args:
        function: ``function(reconstruction, target, data_range)`` of one slice, see the head of
            this module.
        label: name with unit, for tables and axes.
        better: whether higher or lower values are better.
        digits: number of decimals in tables.
    """

    function: SliceFunction
    label: str
    better: Better
    digits: int = 3
