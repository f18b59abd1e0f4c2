"""What a score is: a function of one slice, and how to read its numbers.

Every such function takes the reconstruction ``x`` and the target ``t``, two ``(y, x)`` float32
magnitudes in the same units, and ``data_range``, the target **volume's** maximum. It returns the
score, or None where it cannot be given (the cell stays empty).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Better = Literal["higher", "lower"]
SliceFunction = Callable[[np.ndarray, np.ndarray, float], float | None]


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
