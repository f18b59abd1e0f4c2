"""Simulated scans: noisy, structured discs seen by coils around them."""

from __future__ import annotations

import torch
from torch import Tensor

from mrisem.data.batches import undersample
from mrisem.physics.coils import root_sum_of_squares
from mrisem.physics.fourier import center_crop, crop_readout, fft2c
from mrisem.physics.masks import GaussianMask
from mrisem.physics.simulate import coil_maps
from mrisem.types import Batch, SliceInfo


def simulated_kspace(
    n_slices: int, n_coils: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """K-space ``(slice, coil, y, x)``, maps ``(coil, y, x)``, where the disc is ``(y, x)``."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    disc = x**2 + y**2 < 0.7
    maps = coil_maps(size, n_coils, generator)
    scans = []
    for i in range(n_slices):
        images = maps * disc * (1 + 0.3 * torch.cos((9 + i) * x) * torch.cos(7 * y + i))
        noise = torch.randn(images.shape, dtype=images.dtype, generator=generator)
        scans.append(fft2c(images + 0.005 * noise))
    return torch.stack(scans), maps / root_sum_of_squares(maps).clamp_min(1e-12), disc


def sampled_columns(n_columns: int, n_center: int = 24) -> Tensor:
    """A fourth of the columns, and among them the central ones: ``(x,)`` bool."""
    n_center = min(n_center, n_columns // 8)
    return GaussianMask(4, n_center)(n_columns, (0, n_columns), 0)


def as_batch(kspace: Tensor, maps: Tensor, crop: tuple[int, int], rows: int | None = None) -> Batch:
    """Undersample slices four times; keep all image rows, or the central ones."""
    n, _, y, x = kspace.shape
    columns = sampled_columns(x)
    pairs = [undersample(scan, columns) for scan in kspace]
    rows = rows or y
    masked = crop_readout(torch.stack([scan for scan, _ in pairs]), rows) * columns
    return Batch(
        masked_kspace=masked,
        mask=columns.expand(n, rows, x).contiguous(),
        sensitivity_maps=center_crop(maps, (rows, x)).expand(masked.shape).contiguous(),
        scale=torch.stack([scale for _, scale in pairs]),
        crop=crop,
        info=tuple(SliceInfo("simulated", i, n, "AXT2", "nobody", 4.0) for i in range(n)),
        readout=y,
    )


def simulated_batch(
    n_slices: int, n_coils: int, size: tuple[int, int], rows: int | None = None
) -> Batch:
    """Simulate and undersample; images are cropped to a square."""
    kspace, maps, _ = simulated_kspace(n_slices, n_coils, size)
    return as_batch(kspace, maps, (min(rows or size[0], *size),) * 2, rows)
