import math

import numpy as np
import pytest
import torch

from mrisem.physics.fourier import ifft2c
from mrisem.physics.simulate import _loop_field, acquire, background_phase, coil_maps, noise_level


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n_coils", [4, 8, 16])
def test_coil_maps_are_smooth_and_complete(n_coils):
    maps = coil_maps((128, 72), n_coils, seeded(), field_of_view=(2.0, 1.1))
    rss = maps.abs().square().sum(0).sqrt()
    assert maps.shape == (n_coils, 128, 72)
    assert maps.dtype == torch.complex64
    inside = maps[:, 32:96]
    steps = torch.diff(inside, dim=-1).abs().max(), torch.diff(inside, dim=-2).abs().max()
    assert max(steps) < 0.1 * inside.abs().max()
    assert rss[64, 36] == pytest.approx(1, abs=0.1)
    assert rss[32:96].min() > 0.3
    assert rss[[0, -1]].max() < 1e-3


def test_coil_maps_differ_from_coil_to_coil():
    maps = coil_maps((64, 64), 8, seeded()).flatten(1)
    unit = maps / maps.norm(dim=1, keepdim=True)
    overlap = (unit @ unit.mH).abs() - torch.eye(8)
    assert overlap.max() < 0.95


def test_coil_maps_follow_biot_savart_on_the_axis():
    """On a loop's axis the field goes as (R^2 + d^2)^(-3/2): compare two distances."""
    jitter = torch.randn(4, generator=seeded(1)) * torch.tensor([0.08, 0.04, 0.05, 0.06])
    ring = 0.90 + float(jitter[1])
    radius = 1.3 * math.pi * ring / 8 * (1 + float(jitter[2]))
    angle = math.pi / 8 + float(jitter[0])
    inward = torch.tensor([math.cos(angle), math.sin(angle), float(jitter[3])])
    inward = inward / inward.norm()
    along = torch.stack([torch.zeros(3), 0.4 * ring * inward])[None]
    field = _loop_field(along, 0, 8, seeded(1))
    near, far = 0.6 * ring, ring
    wanted = ((radius**2 + far**2) / (radius**2 + near**2)) ** 1.5
    assert float((field[0, 1] / field[0, 0]).abs()) == pytest.approx(wanted, rel=1e-3)


def naive_coil_maps(side, n_coils, generator, field_of_view):
    """The sum of Biot and Savart by loops, on a ``side x side`` grid: ``(coil, y, x)``."""
    rows, columns = (np.linspace(-0.5, 0.5, side) * extent for extent in field_of_view)
    points = np.array([(x, 0.62 * np.tanh(y / 0.62), 0) for y in rows for x in columns])
    maps = np.zeros((n_coils, side * side), complex)
    for coil in range(n_coils):
        draws = torch.randn(4, generator=generator).double().numpy() * [0.08, 0.04, 0.05, 0.06]
        angle = 2 * np.pi * (coil + 0.5) / n_coils + draws[0]
        ring = 0.9 + draws[1]
        radius = 1.3 * np.pi * ring / max(n_coils, 6) * (1 + draws[2])
        inward = np.array([np.cos(angle), np.sin(angle), draws[3]])
        inward /= np.linalg.norm(inward)
        tangent = np.array([-np.sin(angle), np.cos(angle), 0])
        upward = np.cross(inward, tangent)
        for turn in 2 * np.pi * np.arange(24) / 24:
            wire = ring * inward + radius * (np.cos(turn) * tangent + np.sin(turn) * upward)
            step = np.cos(turn) * upward - np.sin(turn) * tangent
            reach = points - wire
            cube = np.maximum(np.linalg.norm(reach, axis=1), 0.05) ** 3
            field = np.cross(step, reach)
            maps[coil] += (field[:, 0] - 1j * field[:, 1]) / cube
    maps = maps.reshape(n_coils, side, side)
    rss = np.sqrt((abs(maps) ** 2).sum(0))
    maps = maps / rss[side // 2, side // 2]
    maps = maps / (rss / rss[side // 2, side // 2]) ** 0.7
    beyond = np.clip((abs(rows) - 0.55) / 0.35, 0, 1)
    return maps * (np.cos(beyond * np.pi / 2) ** 2)[:, None]


@pytest.mark.parametrize(("n_coils", "field_of_view"), [(4, (1.0, 1.0)), (7, (2.0, 1.1))])
def test_coil_maps_equal_naive_loops_on_their_own_grid(n_coils, field_of_view):
    maps = coil_maps((32, 32), n_coils, seeded(2), field_of_view=field_of_view)
    expected = naive_coil_maps(32, n_coils, seeded(2), field_of_view)
    np.testing.assert_allclose(maps.numpy(), expected, atol=1e-4)
    fine = coil_maps((2 * 31 + 1, 3 * 31 + 1), n_coils, seeded(2), field_of_view=field_of_view)
    torch.testing.assert_close(fine[:, ::2, ::3], maps)  # finer grids pass through the same points


def test_background_phase_is_smooth():
    phase = background_phase((96, 64), seeded())
    assert torch.diff(phase, dim=0).abs().max() < 0.3
    assert torch.diff(phase, dim=1).abs().max() < 0.3


def test_background_phase_passes_through_its_knots_and_ramps():
    phase = background_phase((4 * 8 + 1, 3 * 7 + 1), seeded(5))
    generator = seeded(5)
    knots = 0.9 * torch.randn(5, 4, generator=generator)
    slope_y, slope_x = 1.5 * torch.randn(2, generator=generator)
    y, x = torch.tensor([-1, -0.5, 0, 0.5, 1]), torch.tensor([-1, -1 / 3, 1 / 3, 1])
    torch.testing.assert_close(phase[::8, ::7], knots + slope_y * y[:, None] + slope_x * x)


def test_acquire_without_noise_returns_the_coil_images():
    image = torch.rand(2, 32, 24, generator=seeded())
    maps = coil_maps((32, 24), 4, seeded(1))
    phase = background_phase((32, 24), seeded(2))
    kspace = acquire(image, maps, phase, 0.0, (0, 24), seeded())
    wanted = image[:, None] * maps * torch.exp(1j * phase)
    torch.testing.assert_close(ifft2c(kspace), wanted, atol=1e-5, rtol=1e-4)


def test_acquire_noise_has_the_stated_deviation():
    empty, maps = torch.zeros(1, 128, 128), torch.ones(4, 128, 128, dtype=torch.complex64)
    kspace = acquire(empty, maps, torch.zeros(128, 128), 0.25, (0, 128), seeded())
    images = ifft2c(kspace)
    assert float(images.real.std()) == pytest.approx(0.25, rel=0.02)
    assert float(images.imag.std()) == pytest.approx(0.25, rel=0.02)


def test_acquire_leaves_columns_outside_the_coverage_zero():
    image, maps = torch.rand(1, 16, 20), torch.ones(2, 16, 20, dtype=torch.complex64)
    kspace = acquire(image, maps, torch.zeros(16, 20), 0.1, (3, 18), seeded())
    assert (kspace[..., :3] == 0).all()
    assert (kspace[..., 18:] == 0).all()
    assert (kspace[..., 3:18] != 0).all()


def test_noise_level_counts_only_the_object():
    image = torch.zeros(10, 10)
    image[:3] = 2.0
    assert noise_level(image, 10.0) == pytest.approx(0.2)
    image[3] = 0.049 * 2  # below 5 % of the maximum: not the object
    assert noise_level(image, 10.0) == pytest.approx(0.2)
    image[3] = 0.051 * 2
    assert noise_level(image, 10.0) == pytest.approx((3 * 2 + 0.051 * 2) / 4 / 10)
