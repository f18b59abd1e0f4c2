"""Sensitivity maps cut into parts, each of which the operators transform at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

_CACHED_BYTES = 2**21  # coil images that a CPU transforms at once: they stay in its cache


@dataclass(frozen=True)
class Coils:
    """Sensitivity maps, cut into parts; all operators of one batch share them.

    Args:
        maps: ``(batch, coil, y, x)`` complex.
    """

    maps: Tensor

    @cached_property
    def parts(self) -> list[Part]:
        """Parts that are transformed at once: on a CPU as many coil images as its cache holds."""
        n, n_coils, y, x = self.maps.shape
        n_images = n * n_coils
        if self.maps.is_cpu:
            n_images = max(1, _CACHED_BYTES // (self.maps.element_size() * y * x))
        slice_ranges = _ranges(n, max(1, n_images // n_coils))
        coil_ranges = _ranges(n_coils, min(n_coils, n_images))
        return [
            Part.of(self.maps, slices, coils) for slices in slice_ranges for coils in coil_ranges
        ]


@dataclass(frozen=True)
class Part:
    """Maps of some slices and coils.

    Args:
        slices: range of slices.
        coils: range of coils.
        maps: ``(batch, coil, y, x)`` complex, maps of these slices and coils.
        conjugate: complex conjugate of ``maps``.
    """

    slices: slice
    coils: slice
    maps: Tensor
    conjugate: Tensor

    @classmethod
    def of(cls, maps: Tensor, slices: slice, coils: slice) -> Part:
        """Cut a part out of the maps of a batch."""
        part = maps[slices, coils].contiguous()
        return cls(slices, coils, part, part.conj().resolve_conj())

    def combine(self, coil_images: Tensor) -> Tensor:
        """Apply ``S^H``: coil images -> ``(batch, y, x)``; the coil images are overwritten."""
        return coil_images.mul_(self.conjugate).sum(1)


def _ranges(n: int, size: int) -> list[slice]:
    """Divide ``range(n)`` into ranges of at most ``size``."""
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]
