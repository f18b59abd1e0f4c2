"""Linear reconstructions behind a network's interface: ``Batch -> Reconstruction``."""

from __future__ import annotations

from mrisem.physics.sense import Measurement
from mrisem.physics.solvers import conjugate_gradient
from mrisem.types import Batch, Reconstruction


class ZeroFilled:
    """The SENSE-combined zero-filled image ``A^H y``."""

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch."""
        return Reconstruction(Measurement.of(batch).zero_filled)


class CGSense:
    """Tikhonov-regularised SENSE: ``argmin |A x - y|^2 + weight |x|^2`` by conjugate gradients.

    Args:
        weight: Tikhonov weight, for k-space scaled to a zero-filled maximum of 1; chosen by
            `make tune-baselines`.
        iterations: most CG iterations.
        tolerance: relative residual at which a slice is done.
    """

    def __init__(self, weight: float = 1e-2, iterations: int = 30, tolerance: float = 1e-5) -> None:
        self.weight = weight
        self.iterations = iterations
        self.tolerance = tolerance

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch."""
        measured = Measurement.of(batch)
        solution = conjugate_gradient(
            lambda x: measured.normal(x) + self.weight * x,
            measured.zero_filled,
            tolerance=self.tolerance,
            max_iterations=self.iterations,
        )
        return Reconstruction(solution.image)
