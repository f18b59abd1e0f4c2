"""The SENSE forward model of multi-coil Cartesian MRI: ``y = M F S x``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor
from torch.fft import fft2, ifft2, ifftshift

from mrisem.physics.fourier import fft2c, ifft2c
from mrisem.types import Batch


@dataclass(frozen=True)
class SenseOperator:
    """Multi-coil encoding ``A = M F S``, batched over slices (paper Eq. 4-5, without the noise).

    Args:
        sensitivity_maps: ``(batch, coil, y, x)`` complex, S.
        mask: ``(batch, y, x)`` bool, M.

    Raises:
        ValueError: when the mask does not have the maps' ``(batch, y, x)``.
    """

    sensitivity_maps: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        n, _, y, x = self.sensitivity_maps.shape
        if self.mask.shape != (n, y, x):
            raise ValueError(
                f"mask must be (batch, y, x) = {(n, y, x)}, got {tuple(self.mask.shape)}; "
                "did you pass the coil axis?"
            )

    @classmethod
    def of(cls, batch: Batch, mask: Tensor | None = None) -> SenseOperator:
        """Return the operator of a batch, with another ``(batch, y, x)`` mask if one is given."""
        return cls(batch.sensitivity_maps, batch.mask if mask is None else mask)

    def coil_kspace(self, image: Tensor) -> Tensor:
        """``F S x``, before sampling: ``(batch, y, x)`` -> ``(batch, coil, y, x)``."""
        return fft2c(self.sensitivity_maps * image[:, None])

    def forward(self, image: Tensor) -> Tensor:
        """``A x``: ``(batch, y, x)`` -> ``(batch, coil, y, x)``."""
        return self.mask[:, None] * self.coil_kspace(image)

    def adjoint(self, kspace: Tensor) -> Tensor:
        """``A^H y``: ``(batch, coil, y, x)`` -> ``(batch, y, x)``."""
        coil_images = ifft2c(self.mask[:, None] * kspace)
        return (self.sensitivity_maps.conj() * coil_images).sum(1)

    def normal(self, image: Tensor) -> Tensor:
        """``A^H A x``: ``(batch, y, x)`` -> ``(batch, y, x)``.

        ``F^H M F`` is a circular convolution and commutes with shifts, so the centring of F cancels
        once M is shifted instead: no coil image is moved in memory.
        """
        kspace = fft2(self.sensitivity_maps * image[:, None], norm="ortho") * self._shifted_mask
        return (self._conjugate_maps * ifft2(kspace, norm="ortho")).sum(1)

    @cached_property
    def _shifted_mask(self) -> Tensor:
        return ifftshift(self.mask, dim=(-2, -1))[:, None]

    @cached_property
    def _conjugate_maps(self) -> Tensor:
        return self.sensitivity_maps.conj().resolve_conj()
