"""Tenengrad and HFEN: the amount of fine structure in an image, and its error.

Arguments: see `mrisem.metrics.score`.
"""

import numpy as np

from mrisem.metrics.score import Score, any_unit

_HFEN_SIZE, _HFEN_SIGMA = 15, 1.5  # Ravishankar & Bresler 2011


@any_unit
def tenengrad(reconstruction: np.ndarray, target: np.ndarray, data_range: float) -> float:
    """Mean squared Sobel gradient magnitude of ``reconstruction / data_range``.

    ``mean(Gx^2 + Gy^2)`` over the interior pixels, with the 3 x 3 Sobel kernels in their integer
    form (weights 1, 2, 1; a ramp of slope s has ``Gx = 8 s``). Of the target only the maximum
    of its volume is used. Residual aliasing and noise also raise the value, so it says little
    without other scores.

    Range: [0, inf); higher is sharper.
    Source: Tenenbaum 1970; used by Feng et al., arXiv:2511.19641.

    >>> tenengrad(np.tile(np.arange(5.0), (5, 1)), np.zeros((5, 5)), data_range=1.0)
    64.0
    """
    from scipy.ndimage import sobel

    image = reconstruction.astype(np.float64) / data_range
    squared = sobel(image, axis=0) ** 2 + sobel(image, axis=1) ** 2
    return float(squared[1:-1, 1:-1].mean())  # at the border the kernels leave the image


@any_unit
def tenengrad_distance(reconstruction: np.ndarray, target: np.ndarray, data_range: float) -> float:
    """``|Tenengrad(reconstruction) - Tenengrad(target)|``: blur and added roughness both raise it.

    Range: [0, inf); lower is better.
    """
    return abs(
        tenengrad(reconstruction, target, data_range) - tenengrad(target, target, data_range)
    )


def log_kernel() -> np.ndarray:
    """Make the Laplacian-of-Gaussian kernel of zero sum, 15 x 15, sigma 1.5 pixels.

    ``k(r) = g(r) (r^2 - 2 sigma^2) / sigma^4``, ``g`` the normalised Gaussian; its mean is removed.

    >>> log_kernel().shape, bool(abs(log_kernel().sum()) < 1e-12)
    ((15, 15), True)
    """
    sigma = _HFEN_SIGMA
    axis = np.arange(_HFEN_SIZE) - (_HFEN_SIZE - 1) / 2
    radius2 = axis[:, None] ** 2 + axis[None, :] ** 2
    gaussian = np.exp(-radius2 / (2 * sigma**2))
    kernel = gaussian / gaussian.sum() * (radius2 - 2 * sigma**2) / sigma**4
    return kernel - kernel.mean()


@any_unit
def hfen(reconstruction: np.ndarray, target: np.ndarray, data_range: float = 1.0) -> float | None:
    """High-frequency error norm ``||LoG(x) - LoG(t)|| / ||LoG(t)||``; None where LoG(t) is zero.

    LoG is the convolution with `log_kernel`; images are zero outside. ``data_range`` is not used.
    Range: [0, inf); lower is better.
    Source: Ravishankar & Bresler, IEEE Trans Med Imaging 30:1028 (2011), relative form.
    """
    from scipy.signal import fftconvolve

    kernel = log_kernel()
    edges = fftconvolve(target.astype(np.float64), kernel, mode="same")
    error = fftconvolve((reconstruction - target).astype(np.float64), kernel, mode="same")
    norm = np.linalg.norm(edges)
    return None if norm == 0 else float(np.linalg.norm(error) / norm)


TENENGRAD = Score(tenengrad, "Tenengrad", "higher", 4)
TENENGRAD_DISTANCE = Score(tenengrad_distance, "Tenengrad distance", "lower", 4)
HFEN = Score(hfen, "HFEN", "lower", 3)
