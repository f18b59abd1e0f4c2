"""Masks for `mrisem.undersample`, those of ``conf/mask``: ``mrisem.masks.gaussian(4, seed=0)``.

A mask is drawn for each file, from its name and the seed, as on the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mrisem.api.options import given, option


@dataclass(frozen=True)
class Mask:
    """A choice of ``conf/mask`` with its options; a mask of your own is named here, too.

    Args:
        name: name of the YAML, such as ``gaussian``.
        options: arguments of the mask.
        seed: seed of the draw.

    >>> Mask("gaussian", {"acceleration": 4}).words()
    ['mask=gaussian', 'mask.acceleration=4']
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def words(self) -> list[str]:
        """Return the mask as words of the command line."""
        chosen = {f"mask.{key}": value for key, value in self.options.items() if value is not None}
        return given(mask=self.name) + [option(key, value) for key, value in chosen.items()]


def gaussian(
    acceleration: float = 4,
    *,
    calibration_lines: int | None = None,
    std_fraction: float | None = None,
    seed: int = 0,
) -> Mask:
    """Lines drawn with Gaussian density around the centre (the paper's mask).

    Args:
        acceleration: acquired over sampled phase-encode lines.
        calibration_lines: number of central lines that are always sampled; None: 24.
        std_fraction: standard deviation of the density over the acquired width; None: 0.25.
        seed: seed of the draw.

    >>> gaussian(8, seed=1).words()
    ['mask=gaussian', 'mask.acceleration=8']
    """
    options = {"calibration_lines": calibration_lines, "std_fraction": std_fraction}
    return Mask("gaussian", {"acceleration": acceleration, **options}, seed)


def random(acceleration: float = 4, *, center_fraction: float | None = None, seed: int = 0) -> Mask:
    """FastMRI's random lines; ``center_fraction``: share of calibration lines, None: fastMRI's."""
    return _fastmri("random", acceleration, center_fraction, seed)


def equispaced(
    acceleration: int = 4, *, center_fraction: float | None = None, seed: int = 0
) -> Mask:
    """FastMRI's equally spaced lines, calibration lines on top (see `random`)."""
    return _fastmri("equispaced", acceleration, center_fraction, seed)


def equispaced_fraction(
    acceleration: float = 4, *, center_fraction: float | None = None, seed: int = 0
) -> Mask:
    """FastMRI's equally spaced lines, calibration lines within the acceleration (see `random`)."""
    return _fastmri("equispaced_fraction", acceleration, center_fraction, seed)


def magic(acceleration: int = 4, *, center_fraction: float | None = None, seed: int = 0) -> Mask:
    """FastMRI's equally spaced lines, shifted to use conjugate symmetry (see `random`)."""
    return _fastmri("magic", acceleration, center_fraction, seed)


def from_file() -> Mask:
    """The mask that the file itself carries, dataset ``mask``."""
    return Mask("from_file")


def _fastmri(name: str, acceleration: float, center_fraction: float | None, seed: int) -> Mask:
    return Mask(name, {"acceleration": acceleration, "center_fraction": center_fraction}, seed)
