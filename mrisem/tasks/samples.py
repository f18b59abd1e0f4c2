"""Samples of a scan: data-consistency loss, residual, and splits for self-supervision."""

from __future__ import annotations

import torch
from torch import Tensor

from mrisem.physics.masks import calibration_lines, calibration_square, stable_seed
from mrisem.physics.sense import Measurement
from mrisem.physics.split import split_mask
from mrisem.types import Batch


def data_consistency_loss(batch: Batch, image: Tensor, mask: Tensor) -> Tensor:
    """Compute ``L_dc``: mean absolute error of k-space over the entries of a mask only.

    Feng et al., arXiv:2511.19641, Eq. 7. The mean is over entries, coils, and real and imaginary
    parts.

    Args:
        batch: measured slices.
        image: ``(batch, y, x)`` complex64.
        mask: ``(batch, y, x)`` bool, sampled entries that the loss uses (``mask_loss``).

    Returns:
        ``(batch,)`` float32.
    """
    measurement = Measurement.of(batch, mask)
    error = measurement.sample(image) - measurement.measured
    # real and imaginary part of each sampled entry of each coil
    n_values = 2 * batch.masked_kspace.shape[1] * mask.sum((-2, -1))
    return torch.view_as_real(error).abs().sum((1, 2, 3, 4)) / n_values


def data_consistency_residual(batch: Batch, image: Tensor) -> Tensor:
    """Compute the relative residual ``|M F S x - y| / |y|`` of all samples, ``(batch,)``."""
    measurement = Measurement.of(batch)
    error = measurement.sample(image) - measurement.measured
    return error.flatten(1).norm(dim=1) / measurement.measured.flatten(1).norm(dim=1)


def split_samples(
    batch: Batch, mask: Tensor, share: float, purpose: str, seed: int, calibration: str = "block"
) -> tuple[Tensor, Tensor]:
    """Hold out a share of the samples of each slice, by `mrisem.physics.split.split_mask`.

    Each slice has its own generator, so its split does not depend on the other slices.

    Args:
        batch: slices; file and slice seed the generator, together with ``purpose`` and ``seed``.
        mask: ``(batch, y, x)`` bool, samples that are split.
        share: share of the samples that is held out.
        purpose: name of the split; splits with different names are independent.
        seed: seed of the run.
        calibration: samples that are never held out. ``block``: the central 24 x 24; ``lines``: the
            calibration lines of the batch's mask with all their rows (Feng et al.,
            arXiv:2511.19641).

    Returns:
        remaining and held-out samples, each ``(batch, y, x)`` bool: disjoint, with union ``mask``.
    """
    pairs = []
    for index, info in enumerate(batch.info):
        # equal seeds give equal splits, whatever batch the slice is in
        generator = torch.Generator().manual_seed(stable_seed(purpose, info.file, info.slice, seed))
        slice_mask = mask[index : index + 1].cpu()
        sampled = batch.mask[index].cpu()
        columns = sampled.any(dim=0)
        block = (24, 24)
        if calibration == "lines":
            block = (mask.shape[1], calibration_lines(columns))
            if not sampled.equal(columns.expand_as(sampled)):  # points: a square, no whole lines
                block = (calibration_square(sampled),) * 2
        pairs.append(
            split_mask(slice_mask, loss_share=share, generator=generator, calibration_size=block)
        )
    left, held_out = (torch.cat(side) for side in zip(*pairs, strict=True))
    return left.to(mask.device), held_out.to(mask.device)
