"""The SENSE forward model of multi-coil Cartesian MRI: ``y = M F S x``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fft import fft, ifft, ifftshift

from mrisem.physics.fourier import fft2c
from mrisem.types import Batch

_CACHE = 2**21  # bytes of coil images that a CPU transforms at once


@dataclass(frozen=True)
class Coils:
    """Sensitivity maps as the operators use them; those of one batch share it.

    Args:
        maps: ``(batch, coil, y, x)`` complex.
    """

    maps: Tensor

    @cached_property
    def parts(self) -> list[Part]:
        """Slices and coils that are transformed at once: on a CPU as many as its cache holds."""
        maps = self.maps
        n, coils, y, x = maps.shape
        many = max(1, _CACHE // (maps.element_size() * y * x)) if maps.is_cpu else n * coils
        slices, per_slice = _ranges(n, max(1, many // coils)), min(coils, many)
        return [Part.of(maps, s, c) for s in slices for c in _ranges(coils, per_slice)]


@dataclass(frozen=True)
class Part:
    """Some slices and coils, and their maps, ``(batch, coil, y, x)``."""

    slices: slice
    coils: slice
    maps: Tensor
    conjugate: Tensor

    @classmethod
    def of(cls, maps: Tensor, slices: slice, coils: slice) -> Part:
        """Cut a part out of all maps."""
        part = maps[slices, coils].contiguous()
        return cls(slices, coils, part, part.conj().resolve_conj())

    def combine(self, coil_images: Tensor) -> Tensor:
        """``S^H`` of coil images, which it overwrites: -> ``(batch, y, x)``."""
        return coil_images.mul_(self.conjugate).sum(1)


def _ranges(n: int, size: int) -> list[slice]:
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]


@dataclass(frozen=True)
class SenseOperator:
    """Multi-coil encoding ``A = M F S``, batched over slices (paper Eq. 4-5, without the noise).

    k-space columns without a sample are never made: the transform along x is followed by one along
    y of the sampled columns alone. Where the mask takes whole columns, ``A^H A`` does not mix image
    rows, and needs no transform along y at all.

    Args:
        sensitivity_maps: ``(batch, coil, y, x)`` complex, S.
        mask: ``(batch, y, x)`` bool, M.
        coils: prepared maps; None: they are prepared here.

    Raises:
        ValueError: when the mask does not have the maps' ``(batch, y, x)``.
    """

    sensitivity_maps: Tensor
    mask: Tensor
    coils: Coils = None  # type: ignore[assignment]  # set below

    def __post_init__(self) -> None:
        if self.coils is None:
            object.__setattr__(self, "coils", Coils(self.sensitivity_maps))
        n, _, y, x = self.sensitivity_maps.shape
        if self.mask.shape != (n, y, x):
            raise ValueError(
                f"mask must be (batch, y, x) = {(n, y, x)}, got {tuple(self.mask.shape)}; "
                "did you pass the coil axis?"
            )

    def coil_kspace(self, image: Tensor) -> Tensor:
        """``F S x``, before sampling: ``(batch, y, x)`` -> ``(batch, coil, y, x)``."""
        return fft2c(self.sensitivity_maps * image[:, None])

    def forward(self, image: Tensor) -> Tensor:
        """``A x``: ``(batch, y, x)`` -> ``(batch, coil, y, x)``."""
        kspace = torch.zeros_like(self.sensitivity_maps)
        columns = self.sample(image).roll(kspace.shape[-2] // 2, -2)
        return kspace.index_copy(-1, self._columns, columns)

    def adjoint(self, kspace: Tensor) -> Tensor:
        """``A^H y``: ``(batch, coil, y, x)`` -> ``(batch, y, x)``."""
        image: Tensor = _Linear.apply(self.samples(kspace), self._adjoint, self._sample)
        return image

    def samples(self, kspace: Tensor) -> Tensor:
        """Columns of k-space that have samples, in the order and with the mask of `sample`.

        ``(batch, coil, y, x)`` -> ``(batch, coil, y, column)``.
        """
        columns = ifftshift(kspace.index_select(-1, self._columns), dim=-2)
        return torch.where((self._weights != 0)[:, None], columns, 0)

    def sample(self, image: Tensor) -> Tensor:
        """``A x`` at the columns that have samples, y beginning at the zero frequency.

        ``(batch, y, x)`` -> ``(batch, coil, y, column)``: all entries of ``A x`` that are not zero.
        """
        columns: Tensor = _Linear.apply(image, self._sample, self._adjoint)
        return columns

    def normal(self, image: Tensor) -> Tensor:
        """``A^H A x``: ``(batch, y, x)`` -> ``(batch, y, x)``."""
        result: Tensor = _Linear.apply(image, self._normal, self._normal)
        return result

    def _sample(self, image: Tensor) -> Tensor:
        n, coils, y, _ = self.sensitivity_maps.shape
        columns = image.new_empty((n, coils, y, len(self._columns)))
        for part in self.coils.parts:
            kspace = self._to_columns(fft(part.maps * image[part.slices, None]))
            columns[part.slices, part.coils] = kspace.mul_(self._weights[part.slices, None])
        return columns

    def _adjoint(self, columns: Tensor) -> Tensor:
        n, _, y, x = self.sensitivity_maps.shape
        image = columns.new_zeros((n, y, x))
        weights = self._weights.conj().resolve_conj()
        for part in self.coils.parts:
            kspace = columns[part.slices, part.coils] * weights[part.slices, None]
            image[part.slices] += part.combine(self._from_columns(kspace))
        return image

    def _normal(self, image: Tensor) -> Tensor:
        result = torch.zeros_like(image)
        for part in self.coils.parts:
            kspace = fft(part.maps * image[part.slices, None])
            if self._whole_columns is not None:
                kspace = kspace.mul_(self._whole_columns[part.slices])
                coil_images = ifft(kspace, norm="forward")
            else:
                columns = self._to_columns(kspace).mul_(self._energy[part.slices, None])
                coil_images = self._from_columns(columns)
            result[part.slices] += part.combine(coil_images)
        return result

    def _to_columns(self, kspace: Tensor) -> Tensor:
        """``(..., y, x)`` transformed along x -> ``(..., y, column)``, not normalised."""
        columns = kspace.index_select(-1, self._frequencies)
        return fft(columns, dim=-2)

    def _from_columns(self, columns: Tensor) -> Tensor:
        """Adjoint of the transform along x and `_to_columns`."""
        rows = ifft(columns, dim=-2, norm="forward")
        kspace = rows.new_zeros((*rows.shape[:-1], self.mask.shape[-1]))
        return ifft(kspace.index_copy_(-1, self._frequencies, rows), norm="forward")

    @cached_property
    def _columns(self) -> Tensor:
        """Indices of the columns that have samples, in any slice."""
        if self.mask.is_meta:  # no values: all may have
            return torch.arange(self.mask.shape[-1], device=self.mask.device)
        return self.mask.any(-2).any(0).nonzero().flatten()

    @cached_property
    def _frequencies(self) -> Tensor:
        """The same columns, counted from the zero frequency."""
        x = self.mask.shape[-1]
        return (self._columns - x // 2) % x

    @cached_property
    def _weights(self) -> Tensor:
        """Mask, centring and normalisation: ``(batch, y, column)`` complex.

        The transforms count positions from the first row and column and frequencies from zero;
        `fft2c` counts both from the centre. They differ by a factor of modulus one.
        """
        y, x = self.mask.shape[-2:]
        device, dtype = self.mask.device, self.sensitivity_maps.real.dtype
        ky = torch.arange(y, device=device)
        # whole numbers of turns are removed before the division, which would round them
        turns_y = (ky * (y // 2) % y).to(dtype) / y
        turns_x = (self._frequencies * (x // 2) % x).to(dtype) / x
        angle = 2 * math.pi * (turns_y[:, None] + turns_x)
        factor = torch.polar(torch.full_like(angle, 1 / math.sqrt(y * x)), angle)
        return ifftshift(self.mask.index_select(-1, self._columns), dim=-2) * factor

    @cached_property
    def _energy(self) -> Tensor:
        """Squared modulus of the weights."""
        return torch.view_as_real(self._weights).square().sum(-1)

    @cached_property
    def _whole_columns(self) -> Tensor | None:
        """``(batch, 1, 1, x)`` mask over x, scaled; None where single points were taken."""
        lines = self.mask[:, :1]
        if self.mask.is_meta or not torch.equal(self.mask, lines.expand_as(self.mask)):
            return None
        scaled = ifftshift(lines, dim=-1).to(self.sensitivity_maps.real.dtype)
        return scaled[:, None] / lines.shape[-1]


@dataclass(frozen=True, kw_only=True)
class Measurement(SenseOperator):
    """The operator of a batch, and what was measured with it.

    Args:
        kspace: ``(batch, coil, y, x)`` complex, y; entries outside of the mask do not count.
        solves: the last solves of a network's stages (`mrisem.physics.solvers.Solves`), from which
            the next ones start; None: each solve starts anew.
    """

    kspace: Tensor
    solves: dict[int, Any] | None = None

    @classmethod
    def of(cls, batch: Batch, mask: Tensor | None = None, *, remember: bool = False) -> Measurement:
        """Return the measurement of a batch, or of the part that a ``(batch, y, x)`` mask takes.

        It is made once for each mask: what it prepares serves every step of a fit. A fit lets it
        ``remember`` its solves.
        """
        mask, made = batch.mask if mask is None else mask, batch.measurements
        # a measurement keeps its mask, and so the mask its id
        if id(mask) not in made or (remember and made[id(mask)].solves is None):
            coils = next((m.coils for m in made.values()), Coils(batch.sensitivity_maps))
            solves: dict | None = {} if remember else None
            made[id(mask)] = cls(
                batch.sensitivity_maps, mask, coils, kspace=batch.masked_kspace, solves=solves
            )
        measurement: Measurement = made[id(mask)]
        return measurement

    @cached_property
    def zero_filled(self) -> Tensor:
        """``A^H y``, ``(batch, y, x)``."""
        return self.adjoint(self.kspace)

    @cached_property
    def measured(self) -> Tensor:
        """``M y`` as `sample` orders it, ``(batch, coil, y, column)``."""
        return self.samples(self.kspace)


class _Linear(torch.autograd.Function):
    """Linear map whose gradient is its adjoint, which is written down rather than recorded."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        function: Callable[[Tensor], Tensor],
        adjoint: Callable[[Tensor], Tensor],
    ) -> Tensor:
        ctx.function, ctx.adjoint = function, adjoint
        return function(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _Linear.apply(gradient, ctx.adjoint, ctx.function), None, None
