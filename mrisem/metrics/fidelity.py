"""PSNR, SSIM and NMSE: fastMRI's numbers for volumes, the same definitions for single slices.

Source: ``fastmri.evaluate``, which computes the scores of volumes. Slices have the maximum of their
volume as data range, so the mean of a volume's slice SSIMs is its volume SSIM.
Arguments: see `mrisem.metrics.score`.
"""

import numpy as np

from mrisem.metrics.score import Score, any_unit
from mrisem.physics.units import common_unit


@any_unit
def psnr(reconstruction: np.ndarray, target: np.ndarray, data_range: float) -> float:
    """Peak signal-to-noise ratio ``10 log10(data_range^2 / mean((x - t)^2))`` in dB.

    Range: (-inf, inf]; infinite for equal images; higher is better.

    >>> psnr(np.zeros((2, 2)), np.full((2, 2), 0.1), data_range=1.0)
    20.0
    """
    error = np.mean((target - reconstruction) ** 2, dtype=np.float64)
    with np.errstate(divide="ignore"):  # equal images have an infinite PSNR
        return float(10 * np.log10(data_range**2 / error))


@any_unit
def ssim(reconstruction: np.ndarray, target: np.ndarray, data_range: float) -> float:
    """Structural similarity with a 7 x 7 uniform window, averaged over the slice.

    The slice must have at least 7 x 7 pixels. Range: [-1, 1]; higher is better.
    Source: Wang et al., IEEE Trans Image Process 13:600 (2004).
    """
    from skimage.metrics import structural_similarity

    return float(structural_similarity(target, reconstruction, data_range=data_range))


@any_unit
def nmse(reconstruction: np.ndarray, target: np.ndarray, data_range: float = 1.0) -> float | None:
    """Normalised squared error ``||x - t||^2 / ||t||^2``; None where the target is all zero.

    Range: [0, inf); lower is better. ``data_range`` is not used.

    >>> nmse(np.zeros((2, 2)), np.ones((2, 2)))
    1.0
    """
    energy = np.linalg.norm(target) ** 2
    return None if energy == 0 else float(np.linalg.norm(target - reconstruction) ** 2 / energy)


def volume_scores(reconstruction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Compute PSNR, SSIM and NMSE of a volume by ``fastmri.evaluate`` with its defaults.

    Args:
        reconstruction: ``(slice, y, x)`` magnitude.
        target: ``(slice, y, x)`` magnitude in the same unit, not all zero.
    """
    from fastmri import evaluate  # takes seconds to import

    reconstruction, target, _ = common_unit(reconstruction, target)
    with np.errstate(divide="ignore"):
        peak = float(evaluate.psnr(target, reconstruction))
    return {
        "psnr": peak,
        "ssim": float(np.squeeze(evaluate.ssim(target, reconstruction))),
        "nmse": float(evaluate.nmse(target, reconstruction)),
    }


PSNR = Score(psnr, "PSNR [dB]", "higher", 2)
SSIM = Score(ssim, "SSIM", "higher", 3)
NMSE = Score(nmse, "NMSE", "lower", 4)
