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

from mrisem.physics.coil_parts import Coils
from mrisem.physics.fourier import fft2c
from mrisem.types import Batch


@dataclass(frozen=True)
class SenseOperator:
    """Multi-coil encoding ``A = M F S``, batched over slices.

    Feng et al., arXiv:2511.19641, Eq. 4-5, without the noise. Columns of k-space without a sample
    are not computed: after the transform along x, only sampled columns are transformed along y.
    Where the mask takes whole columns, ``A^H A`` does not mix image rows, and no transform along y
    is needed at all.

    Args:
        sensitivity_maps: ``(batch, coil, y, x)`` complex, S.
        mask: ``(batch, y, x)`` bool, M.
        coils: the maps in parts; None: they are cut here.

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
        """Apply ``F S``, without the mask: ``(batch, y, x)`` -> ``(batch, coil, y, x)``."""
        return fft2c(self.sensitivity_maps * image[:, None])

    def forward(self, image: Tensor) -> Tensor:
        """Apply ``A``: image ``(batch, y, x)`` -> k-space ``(batch, coil, y, x)``."""
        kspace = torch.zeros_like(self.sensitivity_maps)
        columns = self.sample(image).roll(kspace.shape[-2] // 2, -2)
        return kspace.index_copy(-1, self._columns, columns)

    def adjoint(self, kspace: Tensor) -> Tensor:
        """Apply ``A^H``: k-space ``(batch, coil, y, x)`` -> image ``(batch, y, x)``."""
        image: Tensor = _Linear.apply(self.samples(kspace), self._adjoint, self._sample)
        return image

    def samples(self, kspace: Tensor) -> Tensor:
        """Take the sampled columns out of k-space, masked and in the order of `sample`.

        ``(batch, coil, y, x)`` -> ``(batch, coil, y, column)``.
        """
        columns = ifftshift(kspace.index_select(-1, self._columns), dim=-2)
        return torch.where((self._weights != 0)[:, None], columns, 0)

    def sample(self, image: Tensor) -> Tensor:
        """Apply ``A`` and keep the sampled columns: all entries of ``A x`` that are not zero.

        ``(batch, y, x)`` -> ``(batch, coil, y, column)``; y begins at the zero frequency.
        """
        columns: Tensor = _Linear.apply(image, self._sample, self._adjoint)
        return columns

    def normal(self, image: Tensor) -> Tensor:
        """Apply ``A^H A``: image ``(batch, y, x)`` -> image ``(batch, y, x)``."""
        result: Tensor = _Linear.apply(image, self._normal, self._normal)
        return result

    def _sample(self, image: Tensor) -> Tensor:
        """See `sample`, without a gradient."""
        n, n_coils, y, _ = self.sensitivity_maps.shape
        columns = image.new_empty((n, n_coils, y, len(self._columns)))
        for part in self.coils.parts:
            kspace = self._to_columns(fft(part.maps * image[part.slices, None]))
            columns[part.slices, part.coils] = kspace.mul_(self._weights[part.slices, None])
        return columns

    def _adjoint(self, columns: Tensor) -> Tensor:
        """Apply the adjoint of `sample`, without a gradient."""
        n, _, y, x = self.sensitivity_maps.shape
        image = columns.new_zeros((n, y, x))
        weights = self._weights.conj().resolve_conj()
        for part in self.coils.parts:
            kspace = columns[part.slices, part.coils] * weights[part.slices, None]
            image[part.slices] += part.combine(self._from_columns(kspace))
        return image

    def _normal(self, image: Tensor) -> Tensor:
        """See `normal`, without a gradient."""
        result = torch.zeros_like(image)
        for part in self.coils.parts:
            kspace = fft(part.maps * image[part.slices, None])
            if self._whole_columns is not None:
                # the transforms along y cancel: y stays in image space
                kspace = kspace.mul_(self._whole_columns[part.slices])
                coil_images = ifft(kspace, norm="forward")
            else:
                columns = self._to_columns(kspace).mul_(self._energy[part.slices, None])
                coil_images = self._from_columns(columns)
            result[part.slices] += part.combine(coil_images)
        return result

    def _to_columns(self, kspace: Tensor) -> Tensor:
        """Transform sampled columns along y: ``(..., y, x)`` -> ``(..., y, column)``, unscaled.

        ``kspace`` is already transformed along x.
        """
        columns = kspace.index_select(-1, self._frequencies)
        return fft(columns, dim=-2)

    def _from_columns(self, columns: Tensor) -> Tensor:
        """Apply the adjoint of the transform along x followed by `_to_columns`."""
        rows = ifft(columns, dim=-2, norm="forward")
        kspace = rows.new_zeros((*rows.shape[:-1], self.mask.shape[-1]))
        return ifft(kspace.index_copy_(-1, self._frequencies, rows), norm="forward")

    @cached_property
    def _columns(self) -> Tensor:
        """Indices of the columns in which any slice has samples."""
        if self.mask.is_meta:  # such a tensor has no values: any column may have samples
            return torch.arange(self.mask.shape[-1], device=self.mask.device)
        return self.mask.any(-2).any(0).nonzero().flatten()

    @cached_property
    def _frequencies(self) -> Tensor:
        """Indices of the same columns, counted from the zero frequency."""
        x = self.mask.shape[-1]
        return (self._columns - x // 2) % x

    @cached_property
    def _weights(self) -> Tensor:
        """Product of mask, centring and normalisation: ``(batch, y, column)`` complex.

        torch counts positions from the first row and column, and frequencies from zero; `fft2c`
        counts both from the centre. The results differ by a phase factor, which stands here.
        """
        y, x = self.mask.shape[-2:]
        device, dtype = self.mask.device, self.sensitivity_maps.real.dtype
        ky = torch.arange(y, device=device)
        # Whole turns are removed in integers: as floats, large angles would be rounded.
        turns_y = (ky * (y // 2) % y).to(dtype) / y
        turns_x = (self._frequencies * (x // 2) % x).to(dtype) / x
        angle = 2 * math.pi * (turns_y[:, None] + turns_x)
        factor = torch.polar(torch.full_like(angle, 1 / math.sqrt(y * x)), angle)
        return ifftshift(self.mask.index_select(-1, self._columns), dim=-2) * factor

    @cached_property
    def _energy(self) -> Tensor:
        """Squared modulus of the weights, ``(batch, y, column)`` real."""
        return torch.view_as_real(self._weights).square().sum(-1)

    @cached_property
    def _whole_columns(self) -> Tensor | None:
        """Mask of columns ``(batch, 1, 1, x)``, times the transforms' scale; None for point masks.

        torch's transforms along x and back multiply by x, the orthonormal ones by 1.
        """
        first_row = self.mask[:, :1]
        if self.mask.is_meta or not torch.equal(self.mask, first_row.expand_as(self.mask)):
            return None
        scaled_mask = ifftshift(first_row, dim=-1).to(self.sensitivity_maps.real.dtype)
        return scaled_mask[:, None] / first_row.shape[-1]


@dataclass(frozen=True, kw_only=True)
class Measurement(SenseOperator):
    """Encoding operator of a batch together with the k-space that was measured.

    Args:
        kspace: ``(batch, coil, y, x)`` complex, y; entries outside of the mask do not count.
        solves: stage of a network -> its last solves (`mrisem.physics.solvers.Solves`), from which
            the next ones start; None: no solve starts from an earlier one.
    """

    kspace: Tensor
    solves: dict[int, Any] | None = None

    @classmethod
    def of(cls, batch: Batch, mask: Tensor | None = None, *, remember: bool = False) -> Measurement:
        """Return the measurement of a batch, restricted to the samples of a mask.

        One object is made for each mask and kept in the batch, so that every step of a fit uses
        what it has prepared.

        Args:
            batch: measured slices.
            mask: ``(batch, y, x)`` bool, samples that count; None: all samples of the batch.
            remember: keep the solves of a network's stages, from one step of a fit to the next.
        """
        mask, measurements = batch.mask if mask is None else mask, batch.measurements
        # the measurement holds its mask, so no other mask can get the same id
        if id(mask) not in measurements or (remember and measurements[id(mask)].solves is None):
            coils = next(
                (other.coils for other in measurements.values()), Coils(batch.sensitivity_maps)
            )
            solves: dict | None = {} if remember else None
            measurements[id(mask)] = cls(
                batch.sensitivity_maps, mask, coils, kspace=batch.masked_kspace, solves=solves
            )
        measurement: Measurement = measurements[id(mask)]
        return measurement

    @cached_property
    def zero_filled(self) -> Tensor:
        """Zero-filled image ``A^H y``, ``(batch, y, x)`` complex."""
        return self.adjoint(self.kspace)

    @cached_property
    def measured(self) -> Tensor:
        """Measured samples ``M y`` in the order of `sample`, ``(batch, coil, y, column)``."""
        return self.samples(self.kspace)


class _Linear(torch.autograd.Function):
    """Linear map whose gradient is given by its adjoint: no intermediate tensor is recorded."""

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
