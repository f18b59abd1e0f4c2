"""The losses of image and measurement that tasks sum, each ``(batch,)``, one value a slice."""

from __future__ import annotations

import torch
from torch import Tensor

from mrisem.physics.sense import SenseOperator
from mrisem.types import Batch


def data_consistency_loss(batch: Batch, image: Tensor, mask: Tensor) -> Tensor:
    """``L_dc``: mean absolute error of k-space over the entries of ``mask`` only (Eq. 7).

    The mean is over entries, coils, real and imaginary parts: ``(batch,)`` float32.

    Args:
        batch: the measurement.
        image: ``(batch, y, x)`` complex64.
        mask: ``(batch, y, x)`` bool: sampled entries that count, ``mask_loss``.
    """
    sense = SenseOperator.of(batch, mask)
    error = sense.forward(image) - mask[:, None] * batch.masked_kspace
    counted = 2 * batch.masked_kspace.shape[1] * mask.sum((-2, -1))
    return torch.view_as_real(error).abs().sum((1, 2, 3, 4)) / counted


def data_consistency_residual(batch: Batch, image: Tensor) -> Tensor:
    """Relative residual ``|M F S x - y| / |y|`` over all samples, ``(batch,)`` float32."""
    sense = SenseOperator.of(batch)
    error = sense.forward(image) - batch.masked_kspace
    return error.flatten(1).norm(dim=1) / batch.masked_kspace.flatten(1).norm(dim=1)
