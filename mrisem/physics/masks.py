"""Which phase-encode lines are sampled.

A mask object is callable, ``mask(n_columns, padding, seed) -> (x,) bool``: the width of k-space,
the first acquired column and the one after the last, the seed of the draw. It never samples other
columns, which the scanner did not measure. The centre of k-space is the column ``n_columns // 2``.
It may have a method ``center(n_columns) -> (x,) bool``: the lines that every draw samples, from
which sensitivity maps of training slices are estimated once for all epochs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop

DrawnMask = Callable[[int, tuple[int, int], int], Tensor]  # also one from outside this package
FASTMRI_CLASSES = {
    "random": "RandomMaskFunc",
    "equispaced": "EquiSpacedMaskFunc",
    "equispaced_fraction": "EquispacedMaskFractionFunc",
    "magic": "MagicMaskFunc",
}
# Acceleration times calibration share of the fastMRI challenge: 4 x 0.08 and 8 x 0.04 (Zbontar et
# al., arXiv:1811.08839).
_CENTER_PRODUCT = 0.32
_ROUNDING = 1e-6  # of quotients, in lines


def stable_seed(*parts: str | int) -> int:
    """Return a 32-bit seed that depends on ``parts`` only, not on order, process or machine.

    >>> stable_seed("file.h5", 0) == stable_seed("file.h5", 0) != stable_seed("file.h5", 1)
    True
    """
    text = "\x1f".join(str(part) for part in parts)
    # names of files may hold bytes that are no UTF-8
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:4], "big")


def calibration_lines(mask: Tensor) -> int:
    """Width ``w`` of the widest fully sampled block around the centre of a mask ``(x,)`` bool.

    The block is ``[c - w // 2, c - w // 2 + w)`` with ``c = x // 2``: what a centred crop to ``w``
    columns takes; 0 when the centre is not sampled.

    >>> calibration_lines(torch.tensor([1, 0, 0, 1, 1, 1, 0, 1], dtype=torch.bool))
    3
    """
    center = mask.shape[0] // 2
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

    Exactly ``round((right - left) / acceleration)`` lines, the calibration lines among them.
    Source: method, Feng et al., arXiv:2511.19641, section on sampling (24 calibration lines, R = 4,
    standard deviation a quarter of the width).

    Args:
        acceleration: acquired over sampled lines.
        calibration_lines: number of central lines that are always sampled.
        std_fraction: standard deviation of the density in units of the acquired width.

    Raises:
        InputError: when the calibration lines exceed the budget or the acquired columns.
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
                f"mask.calibration_lines must be a whole number, got {self.calibration_lines}"
            )

    def center(self, n_columns: int) -> Tensor:
        """Return the calibration lines ``(x,)`` bool, which every draw samples."""
        start = n_columns // 2 - int(self.calibration_lines) // 2
        columns = torch.arange(n_columns)
        return (columns >= start) & (columns < start + self.calibration_lines)

    def __call__(self, n_columns: int, padding: tuple[int, int], seed: int) -> Tensor:
        """Draw a mask ``(x,)`` bool."""
        left, right = padding
        n_center = int(self.calibration_lines)
        budget = round((right - left) / self.acceleration)
        _check_budget(n_center, budget, right - left, self.acceleration)
        start = n_columns // 2 - n_center // 2
        if n_center and (start < left or start + n_center > right):
            raise InputError(
                f"calibration lines must lie within the acquired columns {padding}, got "
                f"{(start, start + n_center)}; lower mask.calibration_lines"
            )
        columns = np.arange(n_columns)
        deviation = (columns - n_columns // 2) / (self.std_fraction * (right - left))
        weights = np.exp(-(deviation**2) / 2)
        weights[(columns < left) | (columns >= right)] = 0
        mask = np.zeros(n_columns, dtype=bool)
        mask[start : start + n_center] = True
        weights[mask] = 0
        if budget > n_center:
            generator = np.random.default_rng(seed)
            chosen = budget - n_center
            if np.count_nonzero(weights) < chosen:
                raise InputError(
                    f"the density must reach the {chosen} lines to be drawn, mask.std_fraction="
                    f"{self.std_fraction:g} reaches {np.count_nonzero(weights)} of {right - left} "
                    "columns; raise it"
                )
            probability = weights / weights.sum()
            mask[generator.choice(n_columns, chosen, replace=False, p=probability)] = True
        return torch.from_numpy(mask)


@dataclass(frozen=True)
class FastMRIMask:
    """One of fastMRI's own masks, drawn by fastMRI's own class.

    Args:
        kind: ``random``, ``equispaced``, ``equispaced_fraction`` or ``magic``.
        acceleration: fastMRI's nominal acceleration; ``equispaced`` and ``magic`` add the
            calibration lines on top, as there, and so sample a little more.
        center_fraction: share of the columns that is always sampled, ``round(x * center_fraction)``
            lines, at most the ``x / acceleration`` that the acceleration leaves; None takes
            ``0.32 / acceleration``, fastMRI's 0.08 for 4-fold and 0.04 for 8-fold.
    """

    kind: Literal["random", "equispaced", "equispaced_fraction", "magic"]
    acceleration: Annotated[float, Ge(1)] = 4
    center_fraction: Annotated[float, Ge(0), Le(1)] | None = None

    def __post_init__(self) -> None:
        if self.kind not in FASTMRI_CLASSES:
            raise InputError(f"mask.kind must be one of {list(FASTMRI_CLASSES)}, got {self.kind!r}")
        _check_number("acceleration", self.acceleration, 1)
        if self.center_fraction is not None:
            _check_number("center_fraction", self.center_fraction, 0, 1)
            if self.center_fraction * self.acceleration > 1 + _ROUNDING:
                raise InputError(
                    "calibration lines must fit into the share of lines that is sampled: "
                    f"mask.center_fraction may be at most 1 / acceleration = 1 / "
                    f"{self.acceleration:g} = {1 / self.acceleration:.4g}, got "
                    f"{self.center_fraction:g}; lower it or mask.acceleration"
                )
        if self.kind in ("equispaced", "magic") and self.acceleration != int(self.acceleration):
            raise InputError(
                f"mask.acceleration must be a whole number for {self.kind}, got "
                f"{self.acceleration}; take equispaced_fraction or gaussian for others"
            )

    def center(self, n_columns: int) -> Tensor:
        """Return the calibration lines ``(x,)`` bool, placed as fastMRI does."""
        n_center = self._n_center(n_columns)
        start = (n_columns - n_center + 1) // 2
        columns = torch.arange(n_columns)
        return (columns >= start) & (columns < start + n_center)

    def __call__(self, n_columns: int, padding: tuple[int, int], seed: int) -> Tensor:
        """Draw a mask ``(x,)`` bool."""
        import fastmri.data.subsample as subsample

        n_center, lines = self._n_center(n_columns), n_columns / self.acceleration
        _check_budget(n_center, lines, n_columns, self.acceleration)
        whole = int(self.acceleration)
        acceleration = whole if whole == self.acceleration else self.acceleration
        function = getattr(subsample, FASTMRI_CLASSES[self.kind])(
            [n_center / n_columns], [acceleration]
        )
        if self.acceleration == 1:  # fastMRI's equispaced_fraction and magic leave out the last
            mask = torch.ones(n_columns, dtype=torch.bool)
        elif abs(n_center - lines) < _ROUNDING and self.kind in ("random", "equispaced_fraction"):
            # the calibration lines are all the lines: fastMRI divides by the number of the others
            mask = self.center(n_columns)
        else:
            drawn = function((1, n_columns, 1), seed=seed)[0].numpy()
            mask = torch.from_numpy(drawn.reshape(n_columns) > 0)
        mask[: padding[0]] = False
        mask[padding[1] :] = False
        return mask

    def _n_center(self, n_columns: int) -> int:
        """Number of calibration lines; rounding up may not exceed the number of all lines."""
        fraction = self.center_fraction
        if fraction is None:
            fraction = _CENTER_PRODUCT / self.acceleration
        return min(round(n_columns * fraction), int(n_columns / self.acceleration + _ROUNDING))


@dataclass(frozen=True)
class FileMask:
    """The sampling mask that a file itself carries (``mask=from_file``), or that of another file.

    Args:
        path: file with one mask for every scan (.npy, .npz, .mat, .h5); None: each scan's own.
    """

    path: str | None = None

    def check(self, values: np.ndarray | None, n_columns: int, file: str) -> Tensor:
        """Return a file's mask ``(x,)`` or ``(y, x)`` bool.

        Args:
            values: the file's ``mask`` dataset, ``(x,)`` or ``(y, x)``, or None.
            n_columns: width of the file's k-space.
            file: its name, for messages.

        Raises:
            InputError: when there is no mask, or one of the wrong width.
        """
        if values is None:
            raise InputError(f"mask=from_file needs a dataset 'mask', {file} has none; set another")
        if values.ndim not in (1, 2) or values.shape[-1] != n_columns:
            raise InputError(
                f"mask must be (x,) = ({n_columns},) or (y, x), got {tuple(values.shape)} in "
                f"{file}; store one entry a phase-encode column or set mask=gaussian"
            )
        numbers = np.asarray(values)
        if numbers.dtype.kind not in "biuf" or not np.isfinite(numbers).all():
            raise InputError(
                f"mask must hold finite numbers or True and False, got {numbers.dtype} with NaN, "
                f"infinity or text in {file}; store 1 where a column was sampled, else 0"
            )
        return torch.from_numpy(numbers > 0)


ColumnMask = DrawnMask | FileMask


@dataclass(frozen=True)
class MixedMask:
    """One of several equally likely masks, drawn for each seed: training over accelerations."""

    masks: tuple[DrawnMask, ...]

    def center(self, n_columns: int) -> Tensor:
        """Return the lines ``(x,)`` bool that every draw of each mask samples."""
        lines = torch.ones(n_columns, dtype=torch.bool)
        for mask in self.masks:
            center = getattr(mask, "center", None)
            lines &= torch.zeros_like(lines) if center is None else center(n_columns)
        return lines

    def __call__(self, n_columns: int, padding: tuple[int, int], seed: int) -> Tensor:
        """Draw a mask ``(x,)`` bool."""
        choice = stable_seed("mixed", seed) % len(self.masks)
        return self.masks[choice](n_columns, padding, seed)


def paired(make: Callable[..., Any], options: Mapping[str, Any]) -> ColumnMask:
    """Make a mask, or from options that are lists a `MixedMask` of one for each position in them.

    ``acceleration=[4, 8], center_fraction=[.08, .04]`` gives two masks: 4-fold with 0.08 and 8-fold
    with 0.04. An option that is no list holds for each of them.

    Args:
        make: makes a mask from keyword arguments, such as `FastMRIMask`.
        options: its keyword arguments; an option whose own value is a list stands in a second one.

    Raises:
        InputError: when a list is empty, or lists differ in length.
    """
    lists = {name: value for name, value in options.items() if isinstance(value, list | tuple)}
    if not lists:
        return make(**options)
    lengths = {len(values) for values in lists.values()}
    if len(lengths) > 1 or 0 in lengths:
        given = ", ".join(f"mask.{name} with {len(values)}" for name, values in lists.items())
        raise InputError(
            "lists of mask options are paired and must have one length, at least one value, got "
            f"{given}; give each as many, or one number that holds for all"
        )
    rows = (dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True))
    return MixedMask(tuple(make(**{**options, **row}) for row in rows))


def draw_columns(mask: DrawnMask, n_columns: int, padding: tuple[int, int], seed: int) -> Tensor:
    """Draw a mask ``(x,)`` bool and check it, as it may come from outside this package.

    Raises:
        InputError: when the mask is no callable, or gives no ``(x,)`` bool tensor within the
            acquired columns.
    """
    name = type(mask).__name__
    rule = "a mask must be a callable (n_columns, padding, seed) -> (x,) bool tensor"
    if not callable(mask):
        raise InputError(f"{rule}, got an object of class {name}; give it a method __call__")
    columns = mask(n_columns, padding, seed)
    shape, dtype = tuple(getattr(columns, "shape", ())), getattr(columns, "dtype", "")
    if not isinstance(columns, Tensor) or shape != (n_columns,) or dtype != torch.bool:
        raise InputError(
            f"{rule}, {name} gave {type(columns).__name__} {shape} {dtype} for x = {n_columns}; "
            "return one bool a phase-encode column"
        )
    outside = torch.cat((columns[: padding[0]], columns[padding[1] :]))
    if bool(outside.any()):
        raise InputError(
            f"a mask may sample only the acquired columns {padding}, {name} sampled "
            f"{int(outside.sum())} others; set those to False"
        )
    if not bool(columns.any()):
        raise InputError(
            f"a mask must sample at least one of the acquired columns {padding}, {name} sampled "
            f"none of {n_columns}; lower mask.acceleration"
        )
    return columns


def _check_budget(calibration: int, lines: float, width: int, acceleration: float) -> None:
    """Refuse no lines at all, and calibration lines that alone exceed the lines to be sampled."""
    if lines < 1:
        raise InputError(
            f"mask.acceleration may be at most the number of acquired columns, {width}, got "
            f"{acceleration:g}; lower it"
        )
    if calibration > lines + _ROUNDING:
        highest = math.floor(100 * width / calibration) / 100
        raise InputError(
            f"calibration lines must fit into the {lines:g} lines that {acceleration:g}-fold "
            f"acceleration leaves of {width}, got {calibration}; set mask.acceleration to at most "
            f"{highest:g} or sample at most {int(lines)} calibration lines "
            "(mask.calibration_lines or mask.center_fraction)"
        )


def _check_number(name: str, value: Any, least: float, most: float = math.inf) -> None:
    """Refuse what numpy and fastMRI would take for a sampling that nobody meant."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and least <= value <= most):
        upper = f" and at most {most:g}" if most < math.inf else ""
        raise InputError(f"mask.{name} must be a number of at least {least}{upper}, got {value!r}")
