"""The unit of the data changes no score."""

import math

import numpy as np
import pytest
import torch

from mrisem.metrics import fidelity, perceptual, sharpness
from mrisem.metrics.hallucination import image_change, kspace_change
from mrisem.metrics.lesions import score_lesions
from mrisem.metrics.score import Score
from mrisem.metrics.volume import VolumeMetrics

EXACT = [2.0**-66, 2.0**66, 2.0**-100, 2.0**100]
CLOSE = [1e-20, 1e20]
SCORES = {
    name: value
    for module in (fidelity, perceptual, sharpness)
    for name, value in vars(module).items()
    if isinstance(value, Score)
}


def images():
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    target = ((x**2 + y**2 < 0.6) * (1 + 0.3 * np.cos(9 * x))).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal((2, 48, 48)).astype(np.float32)
    targets = np.stack([target, 0.5 * target[::-1]])
    return np.abs(targets + 0.05 * noise), targets


def rows(factor):
    reconstructions, targets = (torch.from_numpy(part * np.float32(factor)) for part in images())
    metrics = VolumeMetrics(SCORES)
    metrics.update(reconstructions, targets, ["a.h5", "a.h5"], [0, 1])
    result = metrics.compute()
    return [*result["slices"], *result["volumes"]]


@pytest.mark.parametrize("factor", [*EXACT, *CLOSE])
def test_no_score_depends_on_the_unit(factor):
    assert {"PSNR", "SSIM", "NMSE", "HAARPSI", "VIF", "LPIPS", "TENENGRAD", "HFEN"} <= set(SCORES)
    for expected, row in zip(rows(1.0), rows(factor), strict=True):
        for name, value in expected.items():
            if isinstance(value, float) and factor in CLOSE:
                assert row[name] == pytest.approx(value, rel=1e-4), name
                assert math.isfinite(value)
            else:
                assert row[name] == value, name


@pytest.mark.parametrize("factor", [*EXACT, *CLOSE])
def test_lesions_and_changes_do_not_depend_on_the_unit(factor):
    def scores(unit):
        guided, targets = (part * np.float32(unit) for part in images())
        labels = np.zeros((48, 48), int)
        labels[14:20, 20:26] = 1
        marked, plain = targets[0].copy(), guided[1]
        marked[14:20, 20:26] *= 2
        (lesion,) = score_lesions(guided[0], marked, labels)
        change = image_change(guided[0], plain, targets[0])
        mask = np.zeros((48, 48), bool)
        mask[:, ::3] = True
        kspace = kspace_change(guided.astype(np.complex64), targets.astype(np.complex64), mask)
        of_lesion = lesion.target_contrast, lesion.contrast, lesion.error
        return [*of_lesion, *change.values(), *kspace.values()]

    tolerance = {"rel": 1e-4} if factor in CLOSE else {"rel": 0, "abs": 0}
    assert scores(factor) == pytest.approx(scores(1.0), **tolerance)


def test_images_that_float32_cannot_hold_are_refused():
    metrics, big = VolumeMetrics({}), torch.full((1, 16, 16), 1e300, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"a\.h5: the target must be finite, got 256"):
        metrics.update(torch.ones(1, 16, 16), big, ["a.h5"], [0])
