"""The samples of a scan: how they are split, and how far an image is from them."""

from __future__ import annotations

import torch
from torch import Tensor

from mrisem.physics.masks import calibration_lines, calibration_square, stable_seed
from mrisem.physics.sense import Measurement
from mrisem.physics.split import split_mask
from mrisem.types import Batch


def data_consistency_loss(batch: Batch, image: Tensor, mask: Tensor) -> Tensor:
    """``L_dc``: mean absolute error of k-space over the entries of ``mask`` only (Eq. 7).

    The mean is over entries, coils, real and imaginary parts: ``(batch,)`` float32.

    Args:
        batch: the measurement.
        image: ``(batch, y, x)`` complex64.
        mask: ``(batch, y, x)`` bool: sampled entries that count, ``mask_loss``.
    """
    counts = Measurement.of(batch, mask)
    error = counts.sample(image) - counts.measured
    counted = 2 * batch.masked_kspace.shape[1] * mask.sum((-2, -1))
    return torch.view_as_real(error).abs().sum((1, 2, 3, 4)) / counted


def data_consistency_residual(batch: Batch, image: Tensor) -> Tensor:
    """Relative residual ``|M F S x - y| / |y|`` over all samples, ``(batch,)`` float32."""
    scan = Measurement.of(batch)
    error = scan.sample(image) - scan.measured
    return error.flatten(1).norm(dim=1) / scan.measured.flatten(1).norm(dim=1)


def split_samples(
    batch: Batch, mask: Tensor, share: float, purpose: str, seed: int, calibration: str = "block"
) -> tuple[Tensor, Tensor]:
    """Hold out a share of the samples, by a generator of each slice's own.

    Args:
        batch: whose files and slices seed the generators, with ``purpose`` and ``seed``.
        mask: ``(batch, y, x)`` bool, the samples to be divided.
        share: share that is held out.
        purpose: what the split is for; splits of different purpose are independent.
        seed: seed of the run.
        calibration: samples that are never held out: ``block``, the central 24 x 24, or ``lines``,
            the calibration lines of the batch's mask with all their rows (Feng et al.,
            arXiv:2511.19641).

    Returns:
        What is left and what is held out: disjoint, together ``mask``.
    """
    pairs = []
    for index, info in enumerate(batch.info):
        generator = torch.Generator().manual_seed(stable_seed(purpose, info.file, info.slice, seed))
        one = mask[index : index + 1].cpu()
        whole = batch.mask[index].cpu()
        columns = whole.any(dim=0)
        kept = (24, 24)
        if calibration == "lines":
            kept = (mask.shape[1], calibration_lines(columns))
            if not whole.equal(columns.expand_as(whole)):  # points have a block instead of lines
                kept = (calibration_square(whole),) * 2
        pairs.append(split_mask(one, loss_share=share, generator=generator, calibration_size=kept))
    left, held_out = (torch.cat(side) for side in zip(*pairs, strict=True))
    return left.to(mask.device), held_out.to(mask.device)
