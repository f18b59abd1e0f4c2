"""Drawing of sampling masks: choice among several masks, and checks of a drawn mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mrisem.errors import InputError
from mrisem.physics.masks import ColumnMask, DrawnMask, stable_seed


@dataclass(frozen=True)
class MixedMask:
    """One of several masks, chosen with equal probability by the seed.

    Training over several accelerations uses it.

    Args:
        masks: masks to choose from.
    """

    masks: tuple[DrawnMask, ...]

    def center(self, n_columns: int) -> Tensor:
        """Mark the lines that every draw of every mask samples: ``(x,)`` bool."""
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
    """Make a mask; where options are lists, make a `MixedMask` with one mask for each position.

    ``acceleration=[4, 8], center_fraction=[.08, .04]`` gives two masks: 4-fold with 0.08 and 8-fold
    with 0.04. An option that is not a list holds for each of them.

    Args:
        make: class or function that makes a mask from keyword arguments, such as `FastMRIMask`.
        options: keyword arguments of ``make``; a value that is a list itself is wrapped in a
            second list.

    Raises:
        InputError: when a list is empty, or lists differ in length.
    """
    lists = {name: value for name, value in options.items() if isinstance(value, list | tuple)}
    if not lists:
        return make(**options)
    lengths = {len(values) for values in lists.values()}
    if len(lengths) > 1 or 0 in lengths:
        lengths_by_name = ", ".join(
            f"mask.{name} with {len(values)}" for name, values in lists.items()
        )
        raise InputError(
            "lists of mask options are paired: they must have the same length, at least 1, got "
            f"{lengths_by_name}; give each list as many values, or one number that holds for all"
        )
    rows = (dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True))
    return MixedMask(tuple(make(**{**options, **row}) for row in rows))


def draw_columns(mask: DrawnMask, n_columns: int, padding: tuple[int, int], seed: int) -> Tensor:
    """Draw a mask ``(x,)`` bool and check it: the mask object may be a user's own.

    Args:
        mask: mask object, see `mrisem.physics.masks`.
        n_columns: width x of k-space.
        padding: first acquired column, and the one after the last.
        seed: seed of the draw.

    Raises:
        InputError: when the mask is not callable, or the draw is not an ``(x,)`` bool tensor with
            samples in acquired columns only.
    """
    name = type(mask).__name__
    rule = "a mask must be a callable (n_columns, padding, seed) -> (x,) bool tensor"
    if not callable(mask):
        raise InputError(f"{rule}, got an object of class {name}; give it a method __call__")
    columns = mask(n_columns, padding, seed)
    shape, dtype = tuple(getattr(columns, "shape", ())), getattr(columns, "dtype", "")
    if not isinstance(columns, Tensor) or shape != (n_columns,) or dtype != torch.bool:
        raise InputError(
            f"{rule}, got {type(columns).__name__} {shape} {dtype} of {name} for x = {n_columns}; "
            "return one bool for each phase-encode column"
        )
    outside = torch.cat((columns[: padding[0]], columns[padding[1] :]))
    if bool(outside.any()):
        raise InputError(
            f"a mask may sample only the acquired columns {padding}, got {int(outside.sum())} "
            f"others of {name}; set those to False"
        )
    if not bool(columns.any()):
        raise InputError(
            f"a mask must sample at least one of the acquired columns {padding}, got none of "
            f"{n_columns} of {name}; lower mask.acceleration"
        )
    return columns
