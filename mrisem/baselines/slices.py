"""Reconstruction of one slice after the other by a NumPy library."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mrisem.types import Batch, Reconstruction


class SliceBySlice:
    """Base class of methods that reconstruct one slice at a time on the CPU."""

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch slice by slice; it may lie on any device."""
        tensors = (batch.masked_kspace, batch.sensitivity_maps, batch.mask)
        arrays = zip(*(t.cpu().numpy() for t in tensors), strict=True)
        images = [
            torch.from_numpy(np.ascontiguousarray(self.solve(*slice_arrays)))
            for slice_arrays in arrays
        ]
        return Reconstruction(torch.stack(images).to(batch.masked_kspace.device, torch.complex64))

    def solve(self, kspace: NDArray, maps: NDArray, mask: NDArray) -> NDArray:
        """Reconstruct one slice.

        Args:
            kspace: ``(coil, y, x)`` complex64, zero where not sampled.
            maps: ``(coil, y, x)`` complex64.
            mask: ``(y, x)`` bool.

        Returns:
            ``(y, x)`` complex.
        """
        raise NotImplementedError
