"""What a score is: a function of one slice, and how to read its numbers.

Every such function takes the reconstruction ``x`` and the target ``t``, two ``(y, x)`` float32
magnitudes in the same units, and ``data_range``, the target **volume's** maximum. It returns the
score, or None where it cannot be given (the cell stays empty).
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
    """Make a score of one slice independent of the unit: squares of float32 stay in its range.

    All three arguments are scaled by one power of two, which changes no bit of the result.
    """

    @wraps(function)
    def scaled(reconstruction: np.ndarray, target: np.ndarray, data_range: float = 1.0) -> R:
        from mrisem.physics.units import common_unit  # imports torch; a table needs no score

        reconstruction, target, exponent = common_unit(reconstruction, target)
        return function(reconstruction, target, float(np.ldexp(data_range, exponent)))

    return scaled


@dataclass(frozen=True)
class Score:
    """One column of ``metrics.csv``.

    Args:
        function: ``function(reconstruction, target, data_range)`` of one slice, see above.
        label: name with unit, for tables and axes.
        better: the direction of better values.
        digits: decimals that tables show.
    """

    function: SliceFunction
    label: str
    better: Better
    digits: int = 3
