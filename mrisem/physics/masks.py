"""Sampling masks: random ones, those of fastMRI, and masks from files.

A mask object is callable, ``mask(n_columns, padding, seed) -> (x,) bool``. Its arguments are the
width of k-space, the acquired columns (the first, and the one after the last) and the seed of the
draw. It samples acquired columns only. The centre of k-space is the column ``n_columns // 2``.
A mask may have a method ``center(n_columns) -> (x,) bool``: the lines that every draw samples.
From them the sensitivity maps of training slices are estimated, once for all epochs.
`mrisem.physics.draws` draws and checks masks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop

DrawnMask = Callable[[int, tuple[int, int], int], Tensor]  # of this package or of a user
FASTMRI_CLASSES = {
    "random": "RandomMaskFunc",
    "equispaced": "EquiSpacedMaskFunc",
    "equispaced_fraction": "EquispacedMaskFractionFunc",
    "magic": "MagicMaskFunc",
}
# Of these, the ones that count the calibration lines among the x / acceleration sampled lines.
_WITHIN_BUDGET = ("random", "equispaced_fraction")
# Acceleration times share of calibration lines in the fastMRI challenge: 4 x 0.08 and 8 x 0.04
# (Zbontar et al., arXiv:1811.08839).
_CENTER_PRODUCT = 0.32
_ROUNDING = 1e-6  # lines: tolerance of comparisons between numbers of lines


def stable_seed(*parts: str | int) -> int:
    """Hash ``parts`` to a 32-bit seed: the same in every process and on every machine.

    >>> stable_seed("file.h5", 0) == stable_seed("file.h5", 0) != stable_seed("file.h5", 1)
    True
    """
    text = "\x1f".join(str(part) for part in parts)
    # a file name may hold bytes that are not UTF-8
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:4], "big")


def calibration_lines(mask: Tensor) -> int:
    """Width ``w`` of the widest fully sampled block around the centre of a mask ``(x,)`` bool.

    The block is ``[c - w // 2, c - w // 2 + w)`` with ``c = x // 2``, as a centred crop to ``w``
    columns takes it. The width is 0 when the centre is not sampled.

    >>> calibration_lines(torch.tensor([1, 0, 0, 1, 1, 1, 0, 1], dtype=torch.bool))
    3
    """
    center = mask.shape[0] // 2
    # sampled columns in a row to the right (with the centre) and to the left of the centre
    right = int(mask[center:].long().cumprod(0).sum())
    left = int(mask[:center].flip(0).long().cumprod(0).sum())
    return min(2 * left + 1, 2 * right)


def calibration_square(mask: Tensor) -> int:
    """Edge of the widest fully sampled square around the centre of a mask, 0 where there is none.

    Args:
        mask: ``(x,)`` bool, of whole columns, or ``(y, x)`` bool, of points.

    >>> points = torch.ones(6, 6, dtype=torch.bool)
    >>> points[0] = points[:, 5] = False
    >>> calibration_square(points)
    4
    """
    if mask.ndim == 1:
        return calibration_lines(mask)
    n = min(mask.shape)
    while n and not bool(center_crop(mask, (n, n)).all()):
        n -= 1
    return n


@dataclass(frozen=True)
class GaussianMask:
    """Lines drawn without replacement with Gaussian density around the centre.

    ``round((right - left) / acceleration)`` lines are sampled, the calibration lines included.
    Source: Feng et al., arXiv:2511.19641, section on sampling (24 calibration lines, R = 4,
    standard deviation a quarter of the width).

    Args:
        acceleration: number of acquired lines over number of sampled lines.
        calibration_lines: number of central lines that are always sampled.
        std_fraction: standard deviation of the density in units of the acquired width.

    Raises:
        InputError: when the calibration lines exceed the sampled lines or the acquired columns.
    """

    acceleration: Annotated[float, Ge(1)] = 4
    calibration_lines: Annotated[int, Ge(0)] = 24
    std_fraction: float = 0.25

    def __post_init__(self) -> None:
        _check_number("acceleration", self.acceleration, 1)
        _check_number("calibration_lines", self.calibration_lines, 0)
        _check_number("std_fraction", self.std_fraction, 1e-3)
        if self.calibration_lines != int(self.calibration_lines):
            raise InputError(
                f"mask.calibration_lines must be a whole number, got {self.calibration_lines}; "
                "round it"
            )

    def center(self, n_columns: int) -> Tensor:
        """Mark the calibration lines, which every draw samples: ``(x,)`` bool."""
        start = n_columns // 2 - int(self.calibration_lines) // 2
        columns = torch.arange(n_columns)
        return (columns >= start) & (columns < start + self.calibration_lines)

    def __call__(self, n_columns: int, padding: tuple[int, int], seed: int) -> Tensor:
        """Draw a mask ``(x,)`` bool."""
        left, right = padding
        n_calibration = int(self.calibration_lines)
        budget = round((right - left) / self.acceleration)
        _check_budget(n_calibration, budget, right - left, self.acceleration)
        start = n_columns // 2 - n_calibration // 2
        if n_calibration and (start < left or start + n_calibration > right):
            raise InputError(
                f"calibration lines must lie within the acquired columns {padding}, got "
                f"{(start, start + n_calibration)}; lower mask.calibration_lines"
            )
        mask = np.zeros(n_columns, dtype=bool)
        mask[start : start + n_calibration] = True
        if budget > n_calibration:
            mask[self._draw(mask, padding, budget - n_calibration, seed)] = True
        return torch.from_numpy(mask)

    def _draw(
        self, calibration: np.ndarray, padding: tuple[int, int], n: int, seed: int
    ) -> np.ndarray:
        """Draw the indices of ``n`` acquired lines beside the calibration lines ``(x,)`` bool."""
        left, right = padding
        columns = np.arange(len(calibration))
        deviation = (columns - len(columns) // 2) / (self.std_fraction * (right - left))
        weights = np.exp(-(deviation**2) / 2)
        weights[(columns < left) | (columns >= right) | calibration] = 0
        # far from the centre a narrow density is zero in floating point
        if np.count_nonzero(weights) < n:
            raise InputError(
                f"the density must reach the {n} lines that are drawn, got "
                f"{np.count_nonzero(weights)} of {right - left} columns within reach of "
                f"mask.std_fraction={self.std_fraction:g}; raise it"
            )
        generator = np.random.default_rng(seed)
        return generator.choice(len(columns), n, replace=False, p=weights / weights.sum())


@dataclass(frozen=True)
class FastMRIMask:
    """One of fastMRI's masks, drawn by fastMRI's own class.

    Args:
        kind: ``random``, ``equispaced``, ``equispaced_fraction`` or ``magic``.
        acceleration: nominal acceleration as fastMRI defines it; ``equispaced`` and ``magic`` add
            the calibration lines on top and so sample a little more.
        center_fraction: share of the columns that is always sampled:
            ``round(x * center_fraction)`` lines, at most ``x / acceleration``; None:
            ``0.32 / acceleration``, which is fastMRI's 0.08 for 4-fold and 0.04 for 8-fold.
    """

    kind: Literal["random", "equispaced", "equispaced_fraction", "magic"]
    acceleration: Annotated[float, Ge(1)] = 4
    center_fraction: Annotated[float, Ge(0), Le(1)] | None = None

    def __post_init__(self) -> None:
        if self.kind not in FASTMRI_CLASSES:
            raise InputError(
                f"mask.kind must be one of {list(FASTMRI_CLASSES)}, got {self.kind!r}; set one of "
                "them"
            )
        _check_number("acceleration", self.acceleration, 1)
        if self.center_fraction is not None:
            _check_number("center_fraction", self.center_fraction, 0, 1)
            if self.center_fraction * self.acceleration > 1 + _ROUNDING:
                raise InputError(
                    "calibration lines must be among the sampled lines: mask.center_fraction may "
                    f"be at most 1 / acceleration = 1 / {self.acceleration:g} = "
                    f"{1 / self.acceleration:.4g}, got {self.center_fraction:g}; lower it or "
                    "mask.acceleration"
                )
        if self.kind in ("equispaced", "magic") and self.acceleration != int(self.acceleration):
            raise InputError(
                f"mask.acceleration must be a whole number for mask={self.kind}, got "
                f"{self.acceleration}; round it, or set mask=equispaced_fraction or mask=gaussian"
            )

    def center(self, n_columns: int) -> Tensor:
        """Mark the calibration lines where fastMRI places them: ``(x,)`` bool."""
        n_calibration = self._n_calibration(n_columns)
        start = (n_columns - n_calibration + 1) // 2
        columns = torch.arange(n_columns)
        return (columns >= start) & (columns < start + n_calibration)

    def __call__(self, n_columns: int, padding: tuple[int, int], seed: int) -> Tensor:
        """Draw a mask ``(x,)`` bool."""
        import fastmri.data.subsample as subsample

        n_calibration, budget = self._n_calibration(n_columns), n_columns / self.acceleration
        _check_budget(n_calibration, budget, n_columns, self.acceleration)
        rounded = int(self.acceleration)
        acceleration = rounded if rounded == self.acceleration else self.acceleration
        function = getattr(subsample, FASTMRI_CLASSES[self.kind])(
            [n_calibration / n_columns], [acceleration]
        )
        if self.acceleration == 1:
            # fastMRI's equispaced_fraction and magic would leave out the last column
            mask = torch.ones(n_columns, dtype=torch.bool)
        elif self.kind in _WITHIN_BUDGET and abs(n_calibration - budget) < _ROUNDING:
            # no line is left to draw: fastMRI would divide by zero
            mask = self.center(n_columns)
        else:
            drawn = function((1, n_columns, 1), seed=seed)[0].numpy()
            mask = torch.from_numpy(drawn.reshape(n_columns) > 0)
        mask[: padding[0]] = False
        mask[padding[1] :] = False
        return mask

    def _n_calibration(self, n_columns: int) -> int:
        """Count the calibration lines; rounded up they may not exceed all sampled lines."""
        fraction = self.center_fraction
        if fraction is None:
            fraction = _CENTER_PRODUCT / self.acceleration
        return min(round(n_columns * fraction), int(n_columns / self.acceleration + _ROUNDING))


@dataclass(frozen=True)
class FileMask:
    """Sampling mask in the scan's own file (``mask=from_file``), or in another file.

    Args:
        path: file with one mask for all scans (.npy, .npz, .mat, .h5); None: each scan's own.
    """

    path: str | None = None

    def check(self, values: np.ndarray | None, n_columns: int, file: str) -> Tensor:
        """Check the mask of a file and return it as ``(x,)`` or ``(y, x)`` bool.

        Args:
            values: dataset ``mask`` of the file, ``(x,)`` or ``(y, x)``; None: the file has none.
            n_columns: width of the file's k-space.
            file: name of the file, for messages.

        Raises:
            InputError: when there is no mask, its width differs, or it holds no numbers.
        """
        if values is None:
            raise InputError(
                f"mask=from_file needs a dataset 'mask', got none in {file}; set another mask"
            )
        if values.ndim not in (1, 2) or values.shape[-1] != n_columns:
            raise InputError(
                f"mask must be (x,) = ({n_columns},) or (y, x), got {tuple(values.shape)} in "
                f"{file}; store one entry for each phase-encode column, or set mask=gaussian"
            )
        numbers = np.asarray(values)
        if numbers.dtype.kind not in "biuf" or not np.isfinite(numbers).all():
            raise InputError(
                f"mask must hold finite numbers or True and False, got NaN, infinity or text "
                f"({numbers.dtype}) in {file}; store 1 where a column was sampled, else 0"
            )
        return torch.from_numpy(numbers > 0)


ColumnMask = DrawnMask | FileMask


def _check_budget(n_calibration: int, budget: float, width: int, acceleration: float) -> None:
    """Raise InputError for less than one sampled line, or more calibration lines than those.

    Args:
        n_calibration: number of calibration lines.
        budget: number of lines that are sampled.
        width: number of acquired lines.
        acceleration: acceleration, for messages.
    """
    if budget < 1:
        raise InputError(
            f"mask.acceleration may be at most the number of acquired columns, {width}, got "
            f"{acceleration:g}; lower it"
        )
    if n_calibration > budget + _ROUNDING:
        highest = math.floor(100 * width / n_calibration) / 100
        raise InputError(
            f"calibration lines must fit into the {budget:g} lines that {acceleration:g}-fold "
            f"acceleration leaves of {width}, got {n_calibration}; set mask.acceleration to at "
            f"most {highest:g} or sample at most {int(budget)} calibration lines "
            "(mask.calibration_lines or mask.center_fraction)"
        )


def _check_number(name: str, value: Any, least: float, most: float = math.inf) -> None:
    """Raise InputError unless a value is a number in its range; numpy and fastMRI do not check."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and least <= value <= most):
        upper = f" and at most {most:g}" if most < math.inf else ""
        raise InputError(
            f"mask.{name} must be a number of at least {least}{upper}, got {value!r}; set one"
        )
