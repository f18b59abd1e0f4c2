"""Scores against other libraries, naive formulas and analytic cases."""

import numpy as np
import pytest
import torch
from fastmri import evaluate
from scipy.ndimage import gaussian_laplace
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mrisem.errors import InputError
from mrisem.metrics.fidelity import NMSE, PSNR, SSIM, nmse, psnr, ssim, volume_scores
from mrisem.metrics.perceptual import haarpsi, vif
from mrisem.metrics.sharpness import TENENGRAD, hfen, log_kernel, tenengrad, tenengrad_distance
from mrisem.metrics.volume import VolumeMetrics


@pytest.fixture
def volumes():
    rng = np.random.default_rng(0)
    target = np.abs(gaussian_laplace(rng.random((3, 40, 36)), 2)).astype(np.float32) * 1e-4
    noise = rng.normal(size=target.shape).astype(np.float32)
    return np.abs(target + 1e-6 * noise), target


def test_volume_scores_equal_fastmri_evaluate(volumes):
    scores = volume_scores(*volumes)
    expected = {
        n: evaluate.METRIC_FUNCS[n](volumes[1], volumes[0]) for n in ("PSNR", "SSIM", "NMSE")
    }
    assert {k: pytest.approx(float(np.squeeze(v)), rel=1e-7) for k, v in expected.items()} == {
        k.upper(): v for k, v in scores.items()
    }


def test_psnr_and_ssim_of_a_slice_equal_skimage_with_the_volumes_range(volumes):
    image, target = volumes[0][1], volumes[1][1]
    peak = float(volumes[1].max())
    assert psnr(image, target, peak) == pytest.approx(
        peak_signal_noise_ratio(target, image, data_range=peak), rel=1e-5
    )
    assert ssim(image, target, peak) == structural_similarity(target, image, data_range=peak)


def test_psnr_of_equal_images_is_infinite_and_nmse_of_an_empty_target_none():
    empty = np.zeros((8, 8), np.float32)
    assert psnr(empty, empty, 1.0) == float("inf")
    assert nmse(empty, empty) is None


def test_tenengrad_equals_naive_loop():
    image = np.random.default_rng(1).random((9, 7))
    total = 0.0
    for y in range(1, 8):
        for x in range(1, 6):
            p = image[y - 1 : y + 2, x - 1 : x + 2] / 2.0
            gx = (p[:, 2] - p[:, 0]) @ [1, 2, 1]
            gy = (p[2] - p[0]) @ [1, 2, 1]
            total += gx**2 + gy**2
    assert tenengrad(image, image, 2.0) == pytest.approx(total / 35)


def test_tenengrad_falls_with_blur(volumes):
    from scipy.ndimage import gaussian_filter

    target = volumes[1][0]
    blurred = gaussian_filter(target, 1.0)
    assert tenengrad(blurred, target, 1e-4) < 0.5 * tenengrad(target, target, 1e-4)


def test_tenengrad_distance_counts_blur_and_noise_alike(volumes):
    from scipy.ndimage import gaussian_filter

    target = volumes[1][0]
    rough = target + 0.05 * target.max() * np.random.default_rng(0).standard_normal(target.shape)
    wanted = tenengrad(target, target, 1e-4)
    for image in (gaussian_filter(target, 1.0), rough.astype(np.float32)):
        difference = tenengrad(image, target, 1e-4) - wanted
        assert tenengrad_distance(image, target, 1e-4) == pytest.approx(abs(difference))
    assert tenengrad_distance(target, target, 1e-4) == 0


def test_log_kernel_equals_scipys_gaussian_laplace():
    impulse = np.zeros((15, 15))
    impulse[7, 7] = 1
    expected = gaussian_laplace(impulse, 1.5, truncate=7 / 1.5)
    assert np.allclose(log_kernel(), expected, atol=0.02 * np.abs(expected).max())


def test_hfen_is_scale_free_zero_for_equal_and_one_for_empty(volumes):
    image, target = volumes[0][0], volumes[1][0]
    assert hfen(target, target) == pytest.approx(0, abs=1e-7)
    assert hfen(np.zeros_like(target), target) == pytest.approx(1)
    assert hfen(3 * image, 3 * target) == pytest.approx(hfen(image, target), rel=1e-5)
    assert hfen(image, np.zeros_like(target)) is None


def test_hfen_equals_relative_norm_of_scipys_filter(volumes):
    image, target = (np.pad(v[0].astype(float), 15) for v in volumes)
    expected = np.linalg.norm(gaussian_laplace(image - target, 1.5)) / np.linalg.norm(
        gaussian_laplace(target, 1.5)
    )
    assert hfen(image, target) == pytest.approx(expected, rel=0.01)


def test_haarpsi_is_one_for_equal_images_and_falls_with_noise(volumes):
    image, target = volumes[0][0], volumes[1][0]
    peak = float(target.max())
    noisier = np.abs(target + 4 * (image - target))
    assert haarpsi(target, target, peak) == pytest.approx(1, abs=1e-5)
    assert haarpsi(noisier, target, peak) < haarpsi(image, target, peak) < 1


def test_vif_equals_piq_in_grey_levels_and_is_one_for_equal_images():
    import piq

    rng = np.random.default_rng(3)
    target = gaussian_laplace(rng.random((48, 44)), 2).clip(0).astype(np.float32)
    image = (target + 0.05 * target.max() * rng.random(target.shape)).astype(np.float32)
    peak = float(image.max())
    grey = [torch.from_numpy(255 * i / peak).clamp(max=255)[None, None] for i in (image, target)]
    expected = float(piq.vif_p(*grey, data_range=255))
    assert vif(image, target, peak) == pytest.approx(expected, rel=1e-3)
    assert 0 < expected < 1
    assert vif(target, target, peak) == pytest.approx(1, abs=1e-4)


def test_vif_of_a_small_image_or_an_empty_target_is_none():
    image = np.ones((41, 41), np.float32)
    assert vif(image[:40], image[:40], 1.0) is None
    assert vif(image, np.zeros_like(image), 1.0) is None


def fast_scores():
    return {"psnr": PSNR, "ssim": SSIM, "nmse": NMSE, "tenengrad": TENENGRAD}


def test_volume_metrics_rows_do_not_depend_on_the_order_of_slices(volumes):
    images, targets = map(torch.from_numpy, volumes)
    straight, shuffled = VolumeMetrics(fast_scores()), VolumeMetrics(fast_scores())
    straight.update(images, targets, ["a.h5"] * 2 + ["b.h5"], [0, 1, 0])
    shuffled.update(images[2:], targets[2:], ["b.h5"], [0])
    for i in (1, 0):
        shuffled.update(images[i : i + 1], targets[i : i + 1], ["a.h5"], [i])
    assert straight.compute() == shuffled.compute()
    volume = straight.compute()["volumes"][0]
    assert volume["file"] == "a.h5"
    assert volume["n_slices"] == 2
    assert volume["ssim"] == pytest.approx(float(evaluate.ssim(volumes[1][:2], volumes[0][:2])[0]))
    mean = np.mean([row["ssim"] for row in straight.compute()["slices"][:2]])
    assert mean == pytest.approx(volume["ssim"], rel=1e-6)
    alone = VolumeMetrics(fast_scores())
    alone.update(images[:1], targets[:1], ["a.h5"], [0], {"a.h5": float(targets[:2].max())})
    assert alone.compute()["slices"] == straight.compute()["slices"][:1]
    straight.reset()
    straight.update(images[:1], targets[:1], ["c.h5"], [5])
    assert [(row["file"], row["slice"]) for row in straight.compute()["slices"]] == [("c.h5", 5)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, t: (x[..., :-1], t), "target's shape"),
        (lambda x, t: (x * float("nan"), t), "must be finite"),
        (lambda x, t: (x[..., :9], t[..., :9]), "at least 16 x 16"),
    ],
)
def test_volume_metrics_refuses_bad_images(volumes, change, words):
    images, targets = change(*map(torch.from_numpy, volumes))
    with pytest.raises(InputError, match=words):
        VolumeMetrics(fast_scores()).update(images, targets, ["a.h5"] * 3, [0, 1, 2])


def test_volume_metrics_refuses_an_empty_target(volumes):
    metrics = VolumeMetrics(fast_scores())
    images = torch.from_numpy(volumes[0])
    metrics.update(images, torch.zeros_like(images), ["a.h5"] * 3, [0, 1, 2])
    with pytest.raises(InputError, match="all zero"):
        metrics.compute()
