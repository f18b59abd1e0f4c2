"""Scaling by powers of two: it makes results independent of the unit of the data.

Squares of float32 values overflow above 1e19 and vanish below 1e-19. Multiplication by a power of
two changes only the exponent of a float, so results from scaled values are equal bit for bit.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def binary_exponent(largest: float) -> int:
    """Return ``e`` with ``2^(e - 1) <= largest < 2^e``; 0 for zero, infinity and NaN.

    >>> binary_exponent(1.0), binary_exponent(0.3), binary_exponent(0.0)
    (1, -1, 0)
    """
    return math.frexp(largest)[1] if math.isfinite(largest) else 0


def shift_exponent(values: Tensor, exponent: int) -> Tensor:
    """Return ``values * 2^exponent``: exact unless the result overflows or underflows.

    >>> shift_exponent(torch.tensor([3.0]), 2)
    tensor([12.])
    """
    if values.is_complex():
        return torch.view_as_complex(shift_exponent(torch.view_as_real(values), exponent))
    # two factors, since float32 does not hold every power of two that may be needed
    half = exponent // 2
    return values * 2.0**half * 2.0 ** (exponent - half)


def exponent_of(values: Tensor) -> int:
    """Return the `binary_exponent` of the largest real or imaginary part."""
    parts = torch.view_as_real(values) if values.is_complex() else values
    return binary_exponent(float(parts.abs().max())) if parts.numel() else 0


def common_unit(
    reconstruction: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Scale two images by one power of two that brings the target's maximum to about 1.

    Args:
        reconstruction: image of any shape.
        target: image in the same unit; where it is all zero, the reconstruction sets the scale.

    Returns:
        scaled reconstruction, scaled target, and the exponent of the power of two.
    """
    largest = float(np.abs(target).max(initial=0)) or float(np.abs(reconstruction).max(initial=0))
    exponent = -binary_exponent(largest)
    return np.ldexp(reconstruction, exponent), np.ldexp(target, exponent), exponent
