"""Signed distances of simple solids (mm, negative inside), and their smooth combinations."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

Point = tuple[float, float, float]


def ellipsoid(points: Tensor, center: Point, radii: Point) -> Tensor:
    """Compute the distance from an ellipsoid, exact to first order near its surface.

    ``k0 (k0 - 1) / k1`` with ``k0 = |p / r|`` and ``k1 = |p / r^2|`` is the implicit function over
    the length of its gradient (Taubin, IEEE PAMI 13, 1991).

    >>> ellipsoid(torch.tensor([3.0, 0, 0]), (0, 0, 0), (2, 2, 2)).item()
    1.0
    """
    scale = torch.tensor(radii)
    offset = points - torch.tensor(center)
    k0 = (offset / scale).norm(dim=-1)
    k1 = (offset / scale**2).norm(dim=-1).clamp_min(1e-6)
    return k0 * (k0 - 1) / k1


def capsule(points: Tensor, start: Point, end: Point, radii: tuple[float, float]) -> Tensor:
    """Compute the distance from a rod with round ends and a linearly changing radius.

    >>> capsule(torch.tensor([2.0, 0, 5]), (0, 0, 0), (0, 0, 9), (1, 1)).item()
    1.0
    """
    first = torch.tensor(start, dtype=points.dtype)
    axis = torch.tensor(end, dtype=points.dtype) - first
    offset = points - first
    along = ((offset @ axis) / (axis @ axis)).clamp(0, 1)
    radius = radii[0] + (radii[1] - radii[0]) * along
    return (offset - along[..., None] * axis).norm(dim=-1) - radius


def band(points: Tensor, knots: list[Point], radius: float) -> Tensor:
    """Compute the distance from a rod of constant radius along a polyline of knots."""
    parts = [capsule(points, a, b, (radius, radius)) for a, b in pairwise(knots)]
    return torch.stack(parts).amin(0)


def join(a: Tensor, b: Tensor, blend: float) -> Tensor:
    """Unite two solids with a rounded edge of about ``blend`` mm, by a cubic smooth minimum.

    >>> join(torch.tensor(1.0), torch.tensor(9.0), 2.0).item()
    1.0
    """
    overlap = (blend - (a - b).abs()).clamp_min(0) / blend
    return torch.minimum(a, b) - overlap**3 * blend / 6


def cut(a: Tensor, b: Tensor, blend: float) -> Tensor:
    """Cut the solid ``b`` out of ``a`` with a rounded edge of about ``blend`` mm."""
    return -join(-a, b, blend)


def common(a: Tensor, b: Tensor, blend: float) -> Tensor:
    """Intersect two solids with a rounded edge of about ``blend`` mm."""
    return -join(-a, -b, blend)
