"""Smooth random fields: what makes one simulated subject differ from the next.

World coordinates are millimetres, ``(x, y, z)`` in the last axis of every points tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from mrisem.physics.coils import cubic_spline


@dataclass(frozen=True)
class Volume:
    """Channels on a regular grid in world space.

    Args:
        values: ``(channel, nx, ny, nz)`` float32.
        origin: world coordinates of voxel (0, 0, 0), mm.
        spacing: edge length of the cubic voxels, mm.
    """

    values: Tensor
    origin: tuple[float, float, float]
    spacing: float

    def sample(self, points: Tensor) -> Tensor:
        """Interpolate linearly; outside the grid the value at its border holds.

        Args:
            points: ``(slice, y, x, 3)`` world coordinates, mm.

        Returns:
            ``(channel, slice, y, x)``.

        >>> ramp = torch.arange(3.0).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
        >>> volume = Volume(ramp, (0, 0, 0), 2.0)
        >>> volume.sample(torch.tensor([1.0, 0.5, 0.5]).reshape(1, 1, 1, 3)).item()
        0.5
        """
        extent = torch.tensor(self.values.shape[1:]) - 1
        index = (points - torch.tensor(self.origin)) / self.spacing
        grid = (2 * index / extent - 1).flip(-1)
        sampled = grid_sample(
            self.values[None], grid[None], padding_mode="border", align_corners=True
        )
        return sampled[0]


def child(seed: int, *keys: int) -> torch.Generator:
    """Return a generator of its own for each ``(seed, *keys)``.

    >>> int(torch.randint(99, (), generator=child(1, 2))) == int(
    ...     torch.randint(99, (), generator=child(1, 2)))
    True
    """
    mixed = seed
    for key in keys:
        mixed = (mixed * 1_000_003 + key + 0x9E3779B9) % (2**63 - 1)
    return torch.Generator().manual_seed(mixed)


def uniform(generator: torch.Generator, low: float, high: float) -> float:
    """Draw one number from ``[low, high)``."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def smooth_field(
    generator: torch.Generator, n_channels: int, half_extent: float, wavelength: float
) -> Volume:
    """Draw a smooth random field of unit standard deviation on a cube around the origin.

    Cubic B-splines between random control points, tabulated four times finer than them.

    Args:
        generator: source of randomness.
        n_channels: number of independent fields.
        half_extent: half the cube's edge, mm.
        wavelength: distance between the control points, mm.
    """
    n_control = max(3, round(2 * half_extent / wavelength) + 1)
    noise = torch.randn(n_channels, *(n_control + 2,) * 3, generator=generator)
    n_fine = 4 * (n_control - 1) + 1
    position = torch.linspace(1, n_control, n_fine)
    spline = cubic_spline(position[:, None] - torch.arange(n_control + 2))
    spline = spline / spline.norm(dim=1, keepdim=True)
    fine = torch.einsum("cxyz,ix,jy,kz->cijk", noise, spline, spline, spline)
    return Volume(fine.contiguous(), (-half_extent,) * 3, 2 * half_extent / (n_fine - 1))


def coverage(distance: Tensor, width: float) -> Tensor:
    """Turn a signed distance (mm, negative inside) into the share of a pixel that is inside.

    About one pixel as ``width`` of the transition, mm, antialiases the edge.
    """
    ramp = (0.5 - distance / width).clamp(0, 1)
    return ramp * ramp * (3 - 2 * ramp)
