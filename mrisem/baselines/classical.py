"""Linear reconstructions with the interface of a network: ``Batch -> Reconstruction``."""

from __future__ import annotations

from mrisem.physics.sense import Measurement
from mrisem.physics.solvers import conjugate_gradient
from mrisem.types import Batch, Reconstruction


class ZeroFilled:
    """Zero-filled image, combined with the sensitivity maps: ``A^H y``."""

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch."""
        return Reconstruction(Measurement.of(batch).zero_filled)


class CGSense:
    """Tikhonov-regularised SENSE: ``argmin |A x - y|^2 + weight |x|^2`` by conjugate gradients.

    Source: Pruessmann et al., Magn Reson Med 46:638 (2001).

    Args:
        weight: Tikhonov weight, for k-space scaled to a zero-filled maximum of 1; the default is
            chosen by `make tune-baselines`.
        iterations: largest number of iterations.
        tolerance: relative residual norm below which a slice is solved.
    """

    def __init__(self, weight: float = 1e-2, iterations: int = 30, tolerance: float = 1e-5) -> None:
        self.weight = weight
        self.iterations = iterations
        self.tolerance = tolerance

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch."""
        measurement = Measurement.of(batch)
        solution = conjugate_gradient(
            lambda x: measurement.normal(x) + self.weight * x,
            measurement.zero_filled,
            tolerance=self.tolerance,
            max_iterations=self.iterations,
        )
        return Reconstruction(solution.image)
