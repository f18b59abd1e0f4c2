"""Simulation of multi-coil k-space from clean images: coils, phase, noise, missing columns."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mrisem.physics.fourier import fft2c

# Lengths are in units of the edge of the square around the object.
_GRID = 32  # points along y and x at which the coils' field is computed
_REACH = 0.62  # largest readout position at which the field is computed, inside the ring at 0.90
_SEGMENTS = 24  # straight segments of a loop
_EVENNESS = 0.7  # 0 leaves the loops' own falloff, 1 makes the root sum of squares 1 everywhere


def coil_maps(
    shape: tuple[int, int],
    n_coils: int,
    generator: torch.Generator,
    *,
    field_of_view: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """Simulate the receive sensitivities of circular loops on a ring around the object.

    By reciprocity the sensitivity of a loop is the transverse field of a unit current in it:
    ``B_x - i B_y`` with ``B(r) = sum_k dl_k x (r - r_k) / |r - r_k|^3`` (Biot and Savart). The main
    field points along the axis of the ring. The maps are divided by a power of their root sum of
    squares, as prescan normalisation does. Along the oversampled readout they fade out beyond the
    square around the object, where a scanner neither excites nor receives.

    Args:
        shape: ``(y, x)``, size of the maps.
        n_coils: number of loops.
        generator: source of randomness: it turns the ring, moves and tilts the loops a little.
        field_of_view: extent along y and x, in units of the edge of the square around the object.

    Returns:
        ``(coil, y, x)`` complex64; the root sum of squares is 1 at the centre.
    """
    rows, columns = (torch.linspace(-0.5, 0.5, _GRID) * extent for extent in field_of_view)
    # tanh keeps the points of an oversampled readout inside the ring of loops
    y, x = torch.meshgrid(_REACH * (rows / _REACH).tanh(), columns, indexing="ij")
    points = torch.stack([x, y, torch.zeros_like(x)], dim=-1)
    field = torch.stack([_loop_field(points, k, n_coils, generator) for k in range(n_coils)])
    center = field[..., _GRID // 2, _GRID // 2].abs().square().sum().sqrt()
    field = field / center
    field = field / field.abs().square().sum(0).sqrt().clamp_min(1e-3) ** _EVENNESS
    # 1 within .55 of the centre along the readout, then a squared cosine down to 0 at .90
    fading = ((rows.abs() - 0.55) / 0.35).clamp(0, 1) * math.pi / 2
    field = field * (fading.cos() ** 2)[:, None]
    channels = torch.cat([field.real, field.imag])[None]
    fine = interpolate(channels, size=shape, mode="bicubic", align_corners=True)[0]
    return torch.complex(fine[:n_coils], fine[n_coils:])


def _loop_field(points: Tensor, index: int, n_coils: int, generator: torch.Generator) -> Tensor:
    """Compute the transverse field of one loop at points ``(y, x, 3)``: ``(y, x)`` complex64."""
    jitter = torch.randn(4, generator=generator) * torch.tensor([0.08, 0.04, 0.05, 0.06])
    angle = 2 * math.pi * (index + 0.5) / n_coils + float(jitter[0])
    ring = 0.90 + float(jitter[1])
    radius = (1.3 * math.pi * ring / max(n_coils, 6)) * (1 + float(jitter[2]))
    # the loop lies in the plane of tangent and upward; its axis points inward, tilted a little
    inward = torch.tensor([math.cos(angle), math.sin(angle), float(jitter[3])])
    inward = inward / inward.norm()
    tangent = torch.tensor([-math.sin(angle), math.cos(angle), 0.0])
    upward = torch.linalg.cross(inward, tangent)
    turn = torch.arange(_SEGMENTS) * (2 * math.pi / _SEGMENTS)
    spokes = turn.cos()[:, None] * tangent + turn.sin()[:, None] * upward
    steps = turn.cos()[:, None] * upward - turn.sin()[:, None] * tangent
    reach = points[:, :, None] - (ring * inward + radius * spokes)
    # the clamp keeps the field finite close to the wire
    cube = reach.norm(dim=-1, keepdim=True).clamp_min(0.05) ** 3
    field = (torch.linalg.cross(steps.expand_as(reach), reach, dim=-1) / cube).sum(-2)
    return torch.complex(field[..., 0], -field[..., 1])


def background_phase(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw the phase of the object: smooth off-resonance and a ramp from an off-centre echo.

    Returns:
        ``(y, x)`` float32 of the given shape, in radians; values are within a few radians.
    """
    knots = 0.9 * torch.randn(1, 1, 5, 4, generator=generator)
    smooth = interpolate(knots, size=shape, mode="bicubic", align_corners=True)[0, 0]
    slopes = 1.5 * torch.randn(2, generator=generator)
    y = torch.linspace(-1, 1, shape[0])[:, None]
    x = torch.linspace(-1, 1, shape[1])[None, :]
    return smooth + slopes[0] * y + slopes[1] * x


# Signal-to-noise ratio of each acquisition in one coil, as `noise_level` defines it.
SNR = {"AXT1": 60.0, "AXT2": 52.0, "AXFLAIR": 44.0, "CORPD_FBK": 52.0, "CORPDFS_FBK": 14.0}
SNR |= dict.fromkeys(("AXT1PRE", "AXT1POST"), SNR["AXT1"])


def noise_level(image: Tensor, snr: float) -> float:
    """Compute the standard deviation of the noise for a given signal-to-noise ratio.

    The signal is the mean of the magnitudes ``image`` over the object (above 5 % of the maximum).
    The standard deviation is that of the real part, and of the imaginary part, in each coil.

    >>> round(noise_level(torch.tensor([0.0, 1.0, 1.0]), 20.0), 6)
    0.05
    """
    return float(image[image > 0.05 * image.max()].mean()) / snr


def acquire(
    image: Tensor,
    maps: Tensor,
    phase: Tensor,
    noise_std: float,
    columns: tuple[int, int],
    generator: torch.Generator,
) -> Tensor:
    """Simulate multi-coil k-space of a stack of slices, ``y = P (F S (|x| e^(i phase)) + n)``.

    Args:
        image: ``(slice, y, x)`` float32 magnitudes on the whole encoded field of view.
        maps: ``(coil, y, x)`` complex64, S.
        phase: ``(y, x)`` float32, radians.
        noise_std: standard deviation of the real and of the imaginary part of the noise; the same
            in k-space and in the coil images, because the transform is unitary.
        columns: first acquired phase-encode column and the one after the last; ``P`` sets the other
            columns to zero.
        generator: source of the noise.

    Returns:
        ``(slice, coil, y, x)`` complex64.
    """
    weights = maps * torch.polar(torch.ones_like(phase), phase)
    kspace = torch.empty(len(image), *maps.shape, dtype=torch.complex64)
    for acquired, magnitude in zip(kspace, image, strict=True):
        noise = torch.randn(2, *maps.shape, generator=generator) * noise_std
        acquired.copy_(fft2c(magnitude * weights) + torch.complex(noise[0], noise[1]))
    kspace[..., : columns[0]] = 0
    kspace[..., columns[1] :] = 0
    return kspace
