"""Smooth random fields, by which simulated subjects differ, and volumes in world coordinates.

World coordinates are in millimetres, ``(x, y, z)`` along the last axis of every tensor of points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from mrisem.physics.coils import cubic_spline


@dataclass(frozen=True)
class Volume:
    """Values on a regular grid in world coordinates.

    Args:
        values: ``(channel, nx, ny, nz)`` float32.
        origin: world coordinates ``(x, y, z)`` of voxel (0, 0, 0), mm.
        spacing: edge length of the cubic voxels, mm.
    """

    values: Tensor
    origin: tuple[float, float, float]
    spacing: float

    def sample(self, points: Tensor) -> Tensor:
        """Interpolate linearly; outside the grid, take the value at its border.

        Args:
            points: ``(slice, y, x, 3)`` world coordinates, mm.

        Returns:
            ``(channel, slice, y, x)``.

        >>> ramp = torch.arange(3.0).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
        >>> volume = Volume(ramp, (0, 0, 0), 2.0)
        >>> volume.sample(torch.tensor([1.0, 0.5, 0.5]).reshape(1, 1, 1, 3)).item()
        0.5
        """
        # grid_sample counts from -1 to 1 and takes the axes in reverse order
        extent = torch.tensor(self.values.shape[1:]) - 1
        index = (points - torch.tensor(self.origin)) / self.spacing
        grid = (2 * index / extent - 1).flip(-1)
        sampled = grid_sample(
            self.values[None], grid[None], padding_mode="border", align_corners=True
        )
        return sampled[0]


def child(seed: int, *keys: int) -> torch.Generator:
    """Make an independent generator for each ``(seed, *keys)``.

    >>> int(torch.randint(99, (), generator=child(1, 2))) == int(
    ...     torch.randint(99, (), generator=child(1, 2)))
    True
    """
    # a linear hash with a large prime; 0x9E3779B9 (golden ratio) keeps zeros apart
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

    Cubic B-splines interpolate between random control points; they are tabulated on a grid four
    times as fine.

    Args:
        generator: source of randomness.
        n_channels: number of independent fields.
        half_extent: half of the cube's edge, mm.
        wavelength: distance between the control points, mm.
    """
    n_control = max(3, round(2 * half_extent / wavelength) + 1)
    noise = torch.randn(n_channels, *(n_control + 2,) * 3, generator=generator)
    n_fine = 4 * (n_control - 1) + 1
    position = torch.linspace(1, n_control, n_fine)
    spline = cubic_spline(position[:, None] - torch.arange(n_control + 2))
    # the squares of a point's weights sum to 1: so does the variance of the field
    spline = spline / spline.norm(dim=1, keepdim=True)
    fine = torch.einsum("cxyz,ix,jy,kz->cijk", noise, spline, spline, spline)
    return Volume(fine.contiguous(), (-half_extent,) * 3, 2 * half_extent / (n_fine - 1))


def coverage(distance: Tensor, width: float) -> Tensor:
    """Turn a signed distance into the share of a pixel that is inside, in [0, 1].

    Args:
        distance: signed distance from the surface, mm, negative inside.
        width: width of the transition, mm; about one pixel avoids jagged edges.
    """
    # smoothstep: a cubic with zero slope at both ends
    ramp = (0.5 - distance / width).clamp(0, 1)
    return ramp * ramp * (3 - 2 * ramp)
