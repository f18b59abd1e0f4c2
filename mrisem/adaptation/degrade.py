"""Training pairs: clean images, varied; degradations, scaled continuously down to none.

Images are ``(n, y, x)``; x is the phase-encode axis.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from mrisem.adaptation.pairs import KINDS, Pairs, compare
from mrisem.adaptation.pool import CONTRASTS, Pool
from mrisem.physics.fourier import fft2c, ifft2c
from mrisem.physics.simulate import SNR, noise_level

# Shares of `pairs.KINDS`: all but reconstructions, which only methods can make.
SHARES = (0.1, 0.33, 0.22, 0.13, 0.11, 0.11)
N_COILS = 4
NOISE = KINDS.index("noise")
MOST_NOISE = 2.0  # of a good scan, times what `mrisem simulate` gives that contrast


def draw_severity(
    n: int, generator: torch.Generator, full: float = 0.5, clean: float = 0.0
) -> Tensor:
    """Draw how much of its damage each image keeps, ``(n,)``.

    Args:
        n: number of images.
        generator: source of randomness.
        full: share of the damaged images that keep all of it; the others keep any part.
        clean: share of images that keep none.
    """
    part = torch.where(_uniform(generator, n) < full, 1.0, _uniform(generator, n))
    return part * (_uniform(generator, n) >= clean)


def draw_pairs(pool: Pool, sizes: list[int], severity: Tensor, generator: torch.Generator) -> Pairs:
    """Draw clean slices and degrade them at one matrix size, drawn from ``sizes``.

    Slices are drawn among those of one size of the pool, and never enlarged. ``severity``: see
    `draw_severity`.
    """
    largest = list(pool)[int(torch.randint(len(pool), (), generator=generator))]
    images, contrasts = pool[largest]
    chosen = torch.randint(len(images), (len(severity),), generator=generator)
    fitting = [size for size in sizes if size <= largest]
    size = fitting[int(torch.randint(len(fitting), (), generator=generator))]
    return make_pairs(images[chosen].float(), contrasts[chosen], size, severity, generator)


def make_pairs(
    clean: Tensor, contrast: Tensor, size: int, severity: Tensor, generator: torch.Generator
) -> Pairs:
    """Vary clean images at random, degrade them at random, and measure the damage.

    Args:
        clean: ``(n, y, x)``.
        contrast: ``(n,)``.
        size: matrix size of the degraded images.
        severity: see `draw_severity`.
        generator: source of randomness.

    Returns:
        pairs at ``(size, size)``.
    """
    n = len(clean)
    kind = torch.multinomial(torch.tensor(SHARES), n, replacement=True, generator=generator)
    acceleration = 2 + 8 * _uniform(generator, n)
    ideal = _vary(clean, size, generator)
    level = noise_levels(ideal, contrast)
    share = _uniform(generator, n).where(kind != NOISE, torch.ones(n))
    truth = _natural(ideal, share * MOST_NOISE * level, generator)
    worst = _worst(truth, kind, acceleration, level, generator)
    return compare(blend(worst, truth.abs(), severity), truth.abs(), ideal, kind, contrast)


def blend(worst: Tensor, truth: Tensor, severity: Tensor) -> Tensor:
    """Scale the damage of images by ``severity``."""
    return (truth + severity.view(-1, 1, 1) * (worst - truth)).clamp_min(0)


def _vary(clean: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Flip, turn, shift, scale, shade and change the contrast; images stay sharp."""
    n = len(clean)
    scale = (0.95 + 0.2 * _uniform(generator, n)).reciprocal()
    angle = 0.1 * torch.randn(n, generator=generator)
    still = _uniform(generator, n) < 0.5  # resampling softens: half stay as sharp as they were
    scale, angle = scale.where(~still, torch.ones(n)), angle.where(~still, torch.zeros(n))
    flip = torch.where(_uniform(generator, n) < 0.5, -1.0, 1.0)
    upside = torch.where(_uniform(generator, n) < 0.2, -1.0, 1.0)
    shift = 0.16 * (_uniform(generator, n, 2) - 0.5) * ~still[:, None]
    rows = [scale * angle.cos() * flip, -scale * angle.sin(), shift[:, 0]]
    columns = [scale * angle.sin() * flip, scale * angle.cos() * upside, shift[:, 1]]
    theta = torch.stack([torch.stack(rows, -1), torch.stack(columns, -1)], 1)
    grid = affine_grid(theta, [n, 1, size, size], align_corners=False)
    small = interpolate(clean[:, None], size=(size, size), mode="bilinear", antialias=True)
    moved = grid_sample(small, grid, mode="bicubic", align_corners=False)[:, 0].clamp_min(0)
    gamma = (0.4 * (_uniform(generator, n, 1, 1) - 0.5)).exp()
    shade = (0.5 * _smooth(generator, n, size)).exp()
    varied = moved.clamp_min(1e-6) ** gamma * shade
    return varied / varied.amax((-2, -1), keepdim=True)


def noise_levels(ideal: Tensor, contrast: Tensor) -> Tensor:
    """Noise of a scan as `mrisem simulate` makes it, by contrast, ``(n,)``."""
    snr = [SNR[CONTRASTS[code]] for code in contrast.tolist()]
    return torch.tensor([noise_level(one, s) for one, s in zip(ideal, snr, strict=True)])


def _natural(magnitude: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    """Add what a good scan has too: smooth phase and a little complex noise."""
    n, size = len(magnitude), magnitude.shape[-1]
    image = torch.polar(magnitude, 2.0 * _smooth(generator, n, size))
    return image + sigma.view(-1, 1, 1) * _complex_noise(generator, magnitude.shape)


def _worst(
    truth: Tensor, kind: Tensor, acceleration: Tensor, level: Tensor, generator: torch.Generator
) -> Tensor:
    """Magnitude at full severity, each image by its own kind; clean ones unchanged."""
    worst = truth.abs()
    makers = {1: _zero_filled, 2: _blurred, 3: _smoothed, NOISE: _noisy, 5: _ghosted}
    for code, maker in makers.items():
        chosen = kind == code
        if chosen.any():
            amount = level if code == NOISE else acceleration
            worst[chosen] = maker(truth[chosen], amount[chosen], generator)
    return worst


def _zero_filled(truth: Tensor, acceleration: Tensor, generator: torch.Generator) -> Tensor:
    """Root-sum-of-squares of zero-filled coil images; one coil for a third of the batches."""
    n, size = len(truth), truth.shape[-1]
    mask = line_masks(acceleration, size, generator)[:, None, None, :]
    n_coils = 1 if float(_uniform(generator, 1)) < 1 / 3 else N_COILS
    maps = _coil_maps(generator, n, n_coils, size)
    return ifft2c(mask * fft2c(maps * truth[:, None])).abs().square().sum(1).sqrt()


def line_masks(acceleration: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Draw phase-encode lines: Gaussian (std a quarter of the width), uniform or equispaced.

    Args:
        acceleration: ``(n,)``.
        width: number of lines; 4 to 12 % of them in the centre are always taken, on top of
            equispaced ones.
        generator: source of randomness.

    Returns:
        ``(n, x)`` float32 of 0 and 1.
    """
    masks = torch.zeros(len(acceleration), width)
    position = torch.arange(width) - width // 2
    for mask, factor in zip(masks, acceleration.tolist(), strict=True):
        first, share = int(torch.randint(width, (), generator=generator)), _uniform(generator, 1)
        gaussian = torch.exp(-0.5 * (position / (width / 4)) ** 2)
        comb = ((position - first) % round(factor) == 0).float()
        style = int(torch.randint(3, (), generator=generator))
        weights = (gaussian, torch.ones(width), comb)[style].clone()
        weights[position.abs() <= (0.02 + 0.04 * share) * width] = 1e6
        lines = int(weights.count_nonzero()) if style == 2 else max(2, round(width / factor))
        mask[torch.multinomial(weights, lines, generator=generator)] = 1
    return masks


def _blurred(truth: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
    """Attenuate high frequencies by a Gaussian, or cut them off, along both axes or x alone."""
    n, size = len(truth), truth.shape[-1]
    frequency = (torch.arange(size) - size // 2) / size
    sigma = (0.9 + 2.1 * _uniform(generator, n, 1)) * size / 192
    soft = torch.exp(-2 * (math.pi * sigma * frequency) ** 2)
    sharp = (frequency.abs() < 0.28 / sigma).float()
    profile = torch.where(_uniform(generator, n, 1) < 0.7, soft, sharp)
    along_y = torch.where(_uniform(generator, n, 1) < 0.7, profile, torch.ones_like(profile))
    return ifft2c(fft2c(truth) * along_y[:, :, None] * profile[:, None, :]).abs()


def _smoothed(truth: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
    """Diffuse along, not across, edges (Perona and Malik 1990): what too much TV looks like."""
    image = truth.abs()
    kappa = 0.03 + 0.06 * _uniform(generator, len(truth), 1, 1)
    for _step in range(int(torch.randint(10, 40, (), generator=generator))):
        flow = torch.zeros_like(image)
        for axis in (-2, -1):
            for direction in (1, -1):
                slope = image.roll(direction, axis) - image
                flow = flow + slope / (1 + (slope / kappa) ** 2)
        image = image + 0.2 * flow
    return image


def _noisy(truth: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
    sigma = level.view(-1, 1, 1) * (4 + 12 * _uniform(generator, len(truth), 1, 1))
    return (truth + sigma * _complex_noise(generator, truth.shape)).abs()


def _ghosted(truth: Tensor, _: Tensor, generator: torch.Generator) -> Tensor:
    """Shift the object while a share of the phase-encode lines is acquired: motion ghosts."""
    n, size = len(truth), truth.shape[-1]
    frequency = (torch.arange(size) - size // 2) / size
    shift = (1.0 + 3.0 * _uniform(generator, n, 2)) * torch.sign(_uniform(generator, n, 2) - 0.5)
    ramp = shift[:, 0, None, None] * frequency[:, None] + shift[:, 1, None, None] * frequency
    n_segments = int(torch.randint(4, 17, (), generator=generator))
    moved = _uniform(generator, n, n_segments) < 0.15 + 0.25 * _uniform(generator, n, 1)
    segment = torch.arange(size) * n_segments // size
    lines = moved[:, segment] & (frequency.abs() > 0.03)  # the centre stays: no double image
    phase = torch.where(lines[:, None, :], 2 * math.pi * ramp, 0.0)
    return ifft2c(fft2c(truth) * torch.polar(torch.ones_like(phase), phase)).abs()


def _coil_maps(generator: torch.Generator, n: int, n_coils: int, size: int) -> Tensor:
    """Smooth complex maps around the image, ``(n, coil, y, x)``, unit root-sum-of-squares."""
    angle = 2 * math.pi * (torch.arange(n_coils) / n_coils + _uniform(generator, n, 1))
    axis = torch.linspace(-1, 1, size)
    center_y, center_x = 1.2 * angle.sin()[..., None, None], 1.2 * angle.cos()[..., None, None]
    distance = (axis[:, None] - center_y).square() + (axis[None, :] - center_x).square()
    phase = 1.5 * _smooth(generator, n * n_coils, size).reshape(n, n_coils, size, size)
    maps = torch.polar(torch.exp(-distance / 1.5), phase)
    return maps / maps.abs().square().sum(1, keepdim=True).sqrt()


def _smooth(generator: torch.Generator, n: int, size: int) -> Tensor:
    """Smooth fields of about unit standard deviation, ``(n, y, x)``."""
    control = torch.randn(n, 1, 4, 4, generator=generator)
    return interpolate(control, size=(size, size), mode="bicubic", align_corners=True)[:, 0]


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator)


def _complex_noise(generator: torch.Generator, shape: torch.Size) -> Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=generator) * math.sqrt(2)
