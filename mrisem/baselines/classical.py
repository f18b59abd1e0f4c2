"""Classical reconstructions behind a network's interface: ``Batch -> Reconstruction``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from mrisem.physics.sense import SenseOperator
from mrisem.physics.solvers import conjugate_gradient
from mrisem.types import Batch, Reconstruction


class ZeroFilled:
    """The SENSE-combined zero-filled image ``A^H y``."""

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch."""
        return Reconstruction(SenseOperator.of(batch).adjoint(batch.masked_kspace))


class CGSense:
    """Tikhonov-regularised SENSE: ``argmin |A x - y|^2 + weight |x|^2`` by conjugate gradients.

    Args:
        weight: Tikhonov weight, for k-space scaled to a zero-filled maximum of 1.
        iterations: most CG iterations.
        tolerance: relative residual at which a slice is done.
    """

    def __init__(self, weight: float = 1e-2, iterations: int = 30, tolerance: float = 1e-5) -> None:
        self.weight = weight
        self.iterations = iterations
        self.tolerance = tolerance

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch."""
        sense = SenseOperator.of(batch)
        image = conjugate_gradient(
            lambda x: sense.normal(x) + self.weight * x,
            sense.adjoint(batch.masked_kspace),
            tolerance=self.tolerance,
            max_iterations=self.iterations,
        )
        return Reconstruction(image)


class TotalVariation:
    """``argmin 1/2 |A x - y|^2 + weight TV(x)`` through sigpy's ``TotalVariationRecon`` (CPU).

    Args:
        weight: for k-space scaled to a zero-filled maximum of 1.
        iterations: primal-dual iterations.
    """

    def __init__(self, weight: float = 0.002, iterations: int = 100) -> None:
        self.weight = weight
        self.iterations = iterations

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch, slice by slice."""
        from sigpy.mri.app import TotalVariationRecon

        def solve(kspace: NDArray, maps: NDArray, mask: NDArray) -> NDArray:
            app = TotalVariationRecon(
                kspace, maps, self.weight, weights=mask, max_iter=self.iterations, show_pbar=False
            )
            return np.asarray(app.run())

        return _slice_by_slice(batch, solve)


class L1Wavelet:
    """``argmin 1/2 |A x - y|^2 + weight |W x|_1`` through sigpy's ``L1WaveletRecon`` (CPU).

    Args:
        weight: for k-space scaled to a zero-filled maximum of 1.
        iterations: accelerated proximal-gradient iterations.
        wavelet: name of the wavelet W, as in PyWavelets.
    """

    def __init__(self, weight: float = 0.002, iterations: int = 100, wavelet: str = "db4") -> None:
        self.weight = weight
        self.iterations = iterations
        self.wavelet = wavelet

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch, slice by slice."""
        from sigpy.mri.app import L1WaveletRecon

        def solve(kspace: NDArray, maps: NDArray, mask: NDArray) -> NDArray:
            app = L1WaveletRecon(
                kspace,
                maps,
                self.weight,
                wave_name=self.wavelet,
                weights=mask,
                max_iter=self.iterations,
                show_pbar=False,
            )
            return np.asarray(app.run())

        return _slice_by_slice(batch, solve)


def _slice_by_slice(
    batch: Batch, solve: Callable[[NDArray, NDArray, NDArray], NDArray]
) -> Reconstruction:
    """Run ``solve(kspace, maps, mask)`` on each slice as NumPy arrays."""
    images = []
    tensors = (batch.masked_kspace, batch.sensitivity_maps, batch.mask)
    for kspace, maps, mask in zip(*(t.cpu().numpy() for t in tensors), strict=True):
        images.append(torch.from_numpy(solve(kspace, maps, mask.astype(np.float32))))
    device = batch.masked_kspace.device
    return Reconstruction(torch.stack(images).to(device, torch.complex64))
