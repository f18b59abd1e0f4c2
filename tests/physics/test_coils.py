import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import mrisem.physics.coils as coils
from mrisem.errors import InputError
from mrisem.physics.coils import ESTIMATORS, combine, root_sum_of_squares, virtual_coils
from mrisem.physics.fourier import fft2c, ifft2c

DATA = Path(
    os.environ.get("MRISEM_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
BRAIN = DATA / "real" / "brain" / "multicoil_val" / "brain_8ch_256.h5"


def simulated(n_coils=4, size=(72, 60)):
    """A disc seen by coils around it, with smooth phase: k-space, true maps, support."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    support = x**2 + y**2 < 0.6
    angles = 2 * np.pi * np.arange(n_coils) / n_coils
    maps = np.stack(
        [
            np.exp(-((x - np.cos(a)) ** 2 + (y - np.sin(a)) ** 2) / 2 + 1j * (x * a + y))
            for a in angles
        ]
    )
    maps /= np.sqrt((abs(maps) ** 2).sum(0))
    image = support * (1 + 0.3 * np.cos(9 * x) * np.cos(7 * y))
    kspace = fft2c(torch.from_numpy((maps * image).astype(np.complex64)))
    return kspace, torch.from_numpy(maps.astype(np.complex64)), torch.from_numpy(support)


def estimate_sensitivity_maps(kspace, *arguments, **options):
    """Of one slice."""
    return coils.estimate_sensitivity_maps(kspace[None], *arguments, **options)[0]


def alignment(maps, reference):
    """Per pixel, the cosine between coil vectors, blind to a common phase."""
    return (maps.conj() * reference).sum(0).abs()


def test_root_sum_of_squares_matches_fastmri():
    import fastmri

    images = torch.randn(2, 3, 5, 4, dtype=torch.complex64)
    expected = fastmri.rss_complex(torch.view_as_real(images), dim=1)
    torch.testing.assert_close(root_sum_of_squares(images), expected)


def test_combine_inverts_the_coils_where_maps_are_of_unit_norm():
    _, maps, _ = simulated()
    image = torch.randn(maps.shape[1:], dtype=torch.complex64)
    torch.testing.assert_close(combine(maps * image, maps), image)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimate_sensitivity_maps_finds_the_true_ones(estimator):
    kspace, truth, support = simulated()
    maps = estimate_sensitivity_maps(kspace, 24, estimator=estimator)
    assert maps.shape == truth.shape
    assert maps.dtype == torch.complex64
    torch.testing.assert_close(root_sum_of_squares(maps), torch.ones(support.shape))
    assert alignment(maps, truth)[support].min() > 0.99


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimate_sensitivity_maps_agrees_with_sigpy_at_full_size(estimator):
    from sigpy.mri.app import EspiritCalib

    kspace, _, support = simulated()
    expected = EspiritCalib(
        kspace.numpy(), calib_width=24, crop=0, max_iter=100, show_pbar=False
    ).run()
    maps = estimate_sensitivity_maps(kspace, 24, estimator=estimator)
    assert alignment(maps, torch.from_numpy(expected))[support].min() > 0.9999


def test_estimate_sensitivity_maps_uses_the_calibration_lines_only():
    kspace, _, _ = simulated()
    changed = kspace.clone()
    changed[:, :, :10] = 0
    torch.testing.assert_close(
        estimate_sensitivity_maps(kspace, 16), estimate_sensitivity_maps(changed, 16)
    )


def test_estimators_agree_in_phase_too():
    kspace, _, support = simulated()
    ours, sigpys = (estimate_sensitivity_maps(kspace, 24, estimator=name) for name in ESTIMATORS)
    relative = (ours.conj() * sigpys).sum(0)[support]
    assert (relative / relative.mean() - 1).abs().max() < 1e-3


def test_slices_of_a_batch_do_not_touch_each_other():
    first, _, _ = simulated()
    batch = torch.stack([first, first.flip(1), 1e-6 * first.flip(0)])
    together = coils.estimate_sensitivity_maps(batch, 24)
    for one, maps in zip(batch, together, strict=True):
        torch.testing.assert_close(maps, estimate_sensitivity_maps(one, 24), atol=1e-3, rtol=0)


def test_spline_weights_equal_scipys():
    from scipy.ndimage import map_coordinates

    values = np.random.default_rng(0).standard_normal(64)
    weights = coils._spline_matrix(37, torch.zeros(1, dtype=torch.complex128)).real
    position = (np.arange(37) - 18) * 64 / 37 + 32
    expected = map_coordinates(values, position[None], order=3, mode="grid-wrap")
    np.testing.assert_allclose(weights @ torch.from_numpy(values), expected, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimate_sensitivity_maps_survives_a_dead_first_coil(estimator):
    kspace, truth, support = simulated()
    kspace[0] = 0
    maps = estimate_sensitivity_maps(kspace, 24, estimator=estimator)
    assert bool(torch.isfinite(torch.view_as_real(maps)).all())
    alive = truth.clone()
    alive[0] = 0
    alive = alive / root_sum_of_squares(alive)
    assert alignment(maps, alive)[support].min() > 0.98


def test_estimate_sensitivity_maps_of_a_single_coil_are_one():
    kspace = torch.randn(1, 20, 18, dtype=torch.complex64)
    assert torch.equal(estimate_sensitivity_maps(kspace, 0), torch.ones_like(kspace))


def test_estimate_sensitivity_maps_refuses_too_little_to_go_by():
    kspace, _, _ = simulated()
    with pytest.raises(InputError, match=r"more than 6 fully sampled lines .* got 4"):
        estimate_sensitivity_maps(kspace, 4)
    with pytest.raises(InputError, match="must not be zero"):
        estimate_sensitivity_maps(torch.zeros_like(kspace), 24)
    with pytest.raises(InputError, match=r"sensitivity_maps must be one of .* got 'barts'"):
        estimate_sensitivity_maps(kspace, 24, estimator="barts")


def test_sensitivity_cache_is_read_keyed_by_content_and_rebuilt_when_damaged(tmp_path, monkeypatch):
    kspace, _, _ = simulated()
    first = estimate_sensitivity_maps(kspace, 24, tmp_path)
    (path,) = tmp_path.iterdir()
    with monkeypatch.context() as patched:
        patched.setitem(ESTIMATORS, "torch", pytest.fail)
        assert torch.equal(estimate_sensitivity_maps(kspace, 24, tmp_path), first)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.warns(UserWarning, match="damaged sensitivity maps"):
        assert torch.equal(estimate_sensitivity_maps(kspace, 24, tmp_path), first)
    assert torch.equal(estimate_sensitivity_maps(kspace, 24, tmp_path), first)
    estimate_sensitivity_maps(kspace, 24, tmp_path, estimator="sigpy")
    estimate_sensitivity_maps(2 * kspace, 24, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_sensitivity_cache_computes_only_the_slices_that_are_missing(tmp_path, monkeypatch):
    kspace, _, _ = simulated()
    batch = torch.stack([kspace, kspace.flip(1), kspace.flip(2)])
    expected = coils.estimate_sensitivity_maps(batch, 24)
    coils.estimate_sensitivity_maps(batch[1:2], 24, tmp_path)
    sizes, ours = [], ESTIMATORS["torch"]

    def counted(calibration):
        sizes.append(len(calibration))
        return ours(calibration)

    monkeypatch.setitem(ESTIMATORS, "torch", counted)
    for _ in range(2):
        maps = coils.estimate_sensitivity_maps(batch, 24, tmp_path)
        torch.testing.assert_close(maps, expected, atol=1e-4, rtol=0)
    assert sizes == [2]


@pytest.mark.skipif(not BRAIN.exists(), reason="real brain k-space not found (MRISEM_TEST_DATA)")
def test_default_crop_keeps_the_anatomy_of_a_real_brain():
    with h5py.File(BRAIN) as file:
        kspace = torch.from_numpy(file["kspace"][0])
        target = torch.from_numpy(file["reconstruction_rss"][0])
    mask = torch.zeros(256, dtype=torch.bool)
    mask[128 - 12 : 128 + 12] = True
    image = combine(ifft2c(kspace), estimate_sensitivity_maps(kspace * mask, 24)).abs()
    psnr = 10 * torch.log10(target.max() ** 2 / (image - target).square().mean())
    assert psnr > 46
    assert (target - image).max() < 0.04 * target.max()


def test_virtual_coils_keep_what_the_largest_singular_values_hold():
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(6, 8, 8, dtype=torch.complex128, generator=generator)
    block[3:] = torch.einsum("ab,byx->ayx", torch.randn(3, 3, dtype=block.dtype), block[:3])
    singular = torch.linalg.svdvals(block.flatten(1))
    for n in (1, 2, 3, 6):
        mix = virtual_coils(block, n)
        torch.testing.assert_close(mix @ mix.mH, torch.eye(n, dtype=block.dtype))
        kept = torch.einsum("vc,cyx->vyx", mix, block).norm()
        torch.testing.assert_close(kept, singular[:n].norm())
