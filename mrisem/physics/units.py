"""Scaling by powers of two, so that the unit of the data changes no result.

Squares of float32 values overflow above 1e19 and vanish below 1e-19. A power of two changes the
exponent of a float only, so that what is computed from scaled values is the same, bit for bit.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def binary_exponent(largest: float) -> int:
    """Return ``e`` with ``2^(e - 1) <= largest < 2^e``; 0 for zero and what is not finite.

    >>> binary_exponent(1.0), binary_exponent(0.3), binary_exponent(0.0)
    (1, -1, 0)
    """
    return math.frexp(largest)[1] if math.isfinite(largest) else 0


def shift_exponent(values: Tensor, exponent: int) -> Tensor:
    """Return ``values * 2^exponent``, exactly where neither end of the range is reached.

    >>> shift_exponent(torch.tensor([3.0]), 2)
    tensor([12.])
    """
    if values.is_complex():
        return torch.view_as_complex(shift_exponent(torch.view_as_real(values), exponent))
    # in two steps, since a float32 does not hold every power that is needed
    half = exponent // 2
    return values * 2.0**half * 2.0 ** (exponent - half)


def exponent_of(values: Tensor) -> int:
    """Return the `binary_exponent` of the largest real or imaginary part."""
    parts = torch.view_as_real(values) if values.is_complex() else values
    return binary_exponent(float(parts.abs().max())) if parts.numel() else 0


def common_unit(
    reconstruction: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Scale two images by one power of two, so that the target's maximum is about 1.

    Returns:
        both, and the exponent of the power that they were multiplied with.
    """
    largest = float(np.abs(target).max(initial=0)) or float(np.abs(reconstruction).max(initial=0))
    exponent = -binary_exponent(largest)
    return np.ldexp(reconstruction, exponent), np.ldexp(target, exponent), exponent
