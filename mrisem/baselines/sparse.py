"""Total variation and l1-wavelet SENSE, solved by sigpy on the CPU.

Both minimise ``1/2 |A x - y|^2 + weight R(x)`` with the unitary Fourier transform. This is the
objective of BART's ``pics -w 1``, so its weights apply. sigpy's own `TotalVariationRecon` and
`L1WaveletRecon` lack two features of BART, which are built here from sigpy's parts:

* sigpy's TV is ``|dx| + |dy|`` with fixed step sizes; after 100 iterations it is up to 4 dB from
  the minimum. Here TV is isotropic, and the steps follow the weight.
* A decimated wavelet transform leaves blocky artefacts that depend on the position of its grid.
  Here the grid is shifted in every iteration (cycle spinning): +1.5 dB on a measured brain.
"""

from __future__ import annotations

import numpy as np
import sigpy
from numpy.typing import NDArray
from sigpy.app import LinearLeastSquares
from sigpy.mri.linop import Sense

from mrisem.baselines.slices import SliceBySlice
from mrisem.errors import InputError

# Upper bound of |G|^2 for forward differences along two axes (Chambolle, J Math Imaging Vis 20:89,
# 2004).
_GRADIENT_NORM = 8.0
# Dual step size in units of the weight. Dual variables are bounded by the weight and images have a
# maximum of 1, so suitable steps keep this ratio. Of 10, 20 and 40, 20 came closest to the minimum
# in 100 iterations at weights of 0.001 and 0.005.
_DUAL_STEP = 20.0
# Number of shifts of the wavelet grid along each axis: a transform of 4 levels has 2^4 different
# ones. Larger shifts would only move the seam between opposite edges into the middle of the image.
_SHIFTS = 16


class TotalVariation(SliceBySlice):
    """``argmin 1/2 |A x - y|^2 + weight sum sqrt(|d_x x|^2 + |d_y x|^2)``, isotropic TV.

    Solved by the primal-dual method of Chambolle & Pock, J Math Imaging Vis 40:120 (2011), through
    sigpy. Differences are periodic.

    Args:
        weight: weight of TV, for k-space scaled to a zero-filled maximum of 1; the default is
            chosen by `make tune-baselines`.
        iterations: number of primal-dual iterations; smaller weights need more.
    """

    def __init__(self, weight: float = 0.0005, iterations: int = 150) -> None:
        _check(weight, iterations)
        self.weight = weight
        self.iterations = iterations

    def solve(self, kspace: NDArray, maps: NDArray, mask: NDArray) -> NDArray:
        """See `SliceBySlice`."""
        # the steps satisfy sigma tau (|A|^2 + |G|^2) <= 1, which the method needs to converge
        gradient = sigpy.linop.FiniteDifference(maps.shape[1:])
        dual_step = _DUAL_STEP * self.weight
        app = LinearLeastSquares(
            _sense(maps, mask),
            kspace,
            proxg=_IsotropicThreshold(gradient.oshape, self.weight),
            G=gradient,
            sigma=dual_step,
            tau=1 / (dual_step * (_sense_norm(maps) + _GRADIENT_NORM)),
            max_iter=self.iterations,
            show_pbar=False,
        )
        return np.asarray(app.run())


class L1Wavelet(SliceBySlice):
    """``argmin 1/2 |A x - y|^2 + weight |W x|_1`` with a shifted wavelet grid in each iteration.

    Solved by FISTA (Beck & Teboulle, SIAM J Imaging Sci 2:183, 2009) through sigpy, with a random
    circular shift of the image under the wavelet transform in each iteration (Figueiredo & Nowak,
    IEEE Trans Image Process 12:906, 2003).

    Args:
        weight: weight of the l1 norm, for k-space scaled to a zero-filled maximum of 1; the default
            is chosen by `make tune-baselines`.
        iterations: number of accelerated proximal-gradient iterations.
        wavelet: name of the wavelet W, as in PyWavelets; db2 is BART's default.
    """

    def __init__(self, weight: float = 0.001, iterations: int = 60, wavelet: str = "db2") -> None:
        _check(weight, iterations)
        self.weight = weight
        self.iterations = iterations
        self.wavelet = wavelet

    def solve(self, kspace: NDArray, maps: NDArray, mask: NDArray) -> NDArray:
        """See `SliceBySlice`."""
        wavelet = sigpy.linop.Wavelet(maps.shape[1:], wave_name=self.wavelet)
        threshold = sigpy.prox.L1Reg(wavelet.oshape, self.weight)
        prox = _Shifted(sigpy.prox.UnitaryTransform(threshold, wavelet))
        app = LinearLeastSquares(
            _sense(maps, mask),
            kspace,
            proxg=prox,
            alpha=1 / _sense_norm(maps),
            max_iter=self.iterations,
            show_pbar=False,
        )
        return np.asarray(app.run())


class _IsotropicThreshold(sigpy.prox.Prox):
    """Soft threshold of the length of each pixel's gradient ``(d_y x, d_x x)``."""

    def __init__(self, shape: list[int], weight: float) -> None:
        self.weight = weight
        super().__init__(shape)

    def _prox(self, alpha: float, gradient: NDArray) -> NDArray:
        length = np.sqrt((np.abs(gradient) ** 2).sum(axis=0, keepdims=True))
        keep = np.maximum(length - self.weight * alpha, 0) / np.where(length > 0, length, 1)
        return gradient * keep.astype(length.dtype)


class _Shifted(sigpy.prox.Prox):
    """Proximal operator applied to a circularly shifted image, with a new shift in each call.

    The shifts come from a fixed seed, so that a reconstruction can be repeated.
    """

    def __init__(self, prox: sigpy.prox.Prox) -> None:
        self.prox = prox
        self.generator = np.random.default_rng(0)
        super().__init__(prox.shape)

    def _prox(self, alpha: float, image: NDArray) -> NDArray:
        shift = self.generator.integers(0, _SHIFTS, size=2)
        shifted = self.prox(alpha, np.roll(image, shift, axis=(0, 1)))
        return np.roll(shifted, -shift, axis=(0, 1))


def _sense(maps: NDArray, mask: NDArray) -> sigpy.linop.Linop:
    """Make ``A = M F S``; sigpy takes the square root of the weights, here 0 and 1."""
    return Sense(maps, weights=mask.astype(np.float32))


def _sense_norm(maps: NDArray) -> float:
    """Bound ``|A|^2`` by the largest sum of squares of the maps: 1 for maps of unit RSS."""
    return max(float((np.abs(maps) ** 2).sum(axis=0).max()), 1e-6)


def _check(weight: float, iterations: int) -> None:
    if not weight > 0:
        raise InputError(f"weight must be positive, got {weight}; raise it")
    if iterations < 1:
        raise InputError(f"iterations must be at least 1, got {iterations}; raise it")
