"""The audit's numbers against differences that were put there by hand."""

import numpy as np
import pytest
import torch

from mrisem.metrics.hallucination import image_change, kspace_change
from mrisem.physics.fourier import ifft2c
from mrisem.physics.sense import SenseOperator

N_COILS, Y, X = 3, 12, 16


def coil_kspace(image, mask):
    """Through constant coils of unit norm: every energy is the image's own."""
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(1, N_COILS, 1, 1, dtype=torch.complex64, generator=generator)
    maps = (maps / maps.abs().square().sum(1, keepdim=True).sqrt()).expand(1, N_COILS, Y, X)
    return SenseOperator(maps, mask[None]).coil_kspace(image[None])[0].numpy()


@pytest.fixture
def scene():
    """Energy 1 in each sample of the image without a prior; every second column is measured."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.polar(torch.ones(Y, X), 6.3 * torch.rand(Y, X, generator=generator))
    mask = torch.zeros(Y, X, dtype=torch.bool)
    mask[:, ::2] = True
    return plain, mask


def compare(plain, changed, mask):
    images = (ifft2c(changed), ifft2c(plain))
    return kspace_change(*(coil_kspace(image, mask) for image in images), mask.numpy())


@pytest.mark.parametrize(("column", "region"), [(4, "measured"), (5, "unmeasured")])
@pytest.mark.parametrize(
    ("factor", "expected"),
    [(3.0, (4.0, 8.0, 0.0)), (0.5, (0.25, 0.0, 0.75)), (-1.0, (4.0, 0.0, 0.0))],
    ids=["added", "removed", "turned"],
)
def test_kspace_change_of_one_line_is_found_where_it_was_made(
    scene, column, region, factor, expected
):
    plain, mask = scene
    changed = plain.clone()
    changed[:, column] *= factor  # changes |f - 1|^2 of the line, adds f^2 - 1
    found = compare(plain, changed, mask)
    lines = X / 2  # of each region, all of equal energy
    for name, share in zip(("changed", "added", "removed"), expected, strict=True):
        assert found.pop(f"{name}_{region}") == pytest.approx(share / lines, abs=1e-5)
    assert len(found) == 3
    assert max(found.values()) < 1e-6


def test_kspace_change_added_minus_removed_is_the_change_of_energy(scene):
    _, mask = scene
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, N_COILS, Y, X)) + 1j * rng.normal(size=(2, N_COILS, Y, X))
    found = kspace_change(noise[0], noise[1], mask.numpy())
    for region, where in (("measured", mask.numpy()), ("unmeasured", ~mask.numpy())):
        before, after = (np.linalg.norm(one[:, where]) ** 2 for one in (noise[1], noise[0]))
        net = found[f"added_{region}"] - found[f"removed_{region}"]
        assert net == pytest.approx(after / before - 1)
        change = np.linalg.norm((noise[0] - noise[1])[:, where]) ** 2
        assert found[f"changed_{region}"] == pytest.approx(change / before)


def test_kspace_change_without_unmeasured_samples_is_nan_there(scene):
    plain, mask = scene
    found = compare(plain, 2 * plain, torch.ones_like(mask))
    assert np.isnan(found["changed_unmeasured"])
    assert found["changed_measured"] == pytest.approx(1.0)


def test_image_change_tells_invented_from_restored_detail():
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 2, (32, 32)).astype(np.float32)
    detail = rng.normal(size=target.shape).astype(np.float32)
    assert image_change(target, target + detail, target)["false_detail"] == 0.0
    assert image_change(target + detail, target, target)["false_detail"] == 1.0
    away = image_change(target + 2.1 * detail, target + detail, target)
    over = image_change(target - 1.1 * detail, target + detail, target)  # restored too far
    assert away["false_detail"] == over["false_detail"] == 1.0


def test_image_change_of_random_sign_is_half_wrong():
    rng = np.random.default_rng(1)
    target, plain = rng.uniform(1, 2, (2, 200, 200))
    found = image_change(plain + 1e-3 * rng.normal(size=target.shape), plain, target)
    assert found["false_detail"] == pytest.approx(0.5, abs=0.02)
    assert found["difference"] == pytest.approx(1e-6 / (7 / 3), rel=0.03)  # E t^2 = 7 / 3


def test_image_change_weighs_pixels_by_their_change():
    target, plain = np.zeros((1, 2)), np.ones((1, 2))
    found = image_change(np.array([[2.0, 0.5]]), plain, target)
    assert found["false_detail"] == pytest.approx(1 / 1.25)
    assert np.isnan(found["difference"])
    assert np.isnan(image_change(plain, plain, target)["false_detail"])
