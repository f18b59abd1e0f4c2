"""One slice after the other through a NumPy library."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mrisem.types import Batch, Reconstruction


class SliceBySlice:
    """Base of the methods that reconstruct one slice at a time on the CPU."""

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch, on any device, slice by slice."""
        tensors = (batch.masked_kspace, batch.sensitivity_maps, batch.mask)
        arrays = zip(*(t.cpu().numpy() for t in tensors), strict=True)
        images = [torch.from_numpy(np.ascontiguousarray(self.solve(*one))) for one in arrays]
        return Reconstruction(torch.stack(images).to(batch.masked_kspace.device, torch.complex64))

    def solve(self, kspace: NDArray, maps: NDArray, mask: NDArray) -> NDArray:
        """Reconstruct a slice: ``(coil, y, x)`` complex64 twice, ``(y, x)`` bool -> ``(y, x)``."""
        raise NotImplementedError
