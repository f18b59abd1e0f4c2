"""One slice after the other through a NumPy library."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from mrisem.types import Batch, Reconstruction


def slice_by_slice(
    batch: Batch, solve: Callable[[NDArray, NDArray, NDArray], NDArray]
) -> Reconstruction:
    """Reconstruct each slice of a batch on the CPU.

    Args:
        batch: on any device.
        solve: ``(kspace, maps, mask)``, ``(coil, y, x)`` complex64 twice and ``(y, x)`` bool, to
            an image ``(y, x)`` complex.

    Returns:
        The images, on the batch's device.
    """
    tensors = (batch.masked_kspace, batch.sensitivity_maps, batch.mask)
    arrays = zip(*(t.cpu().numpy() for t in tensors), strict=True)
    images = [torch.from_numpy(np.ascontiguousarray(solve(*one))) for one in arrays]
    return Reconstruction(torch.stack(images).to(batch.masked_kspace.device, torch.complex64))
