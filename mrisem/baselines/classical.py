"""Linear reconstructions behind a network's interface: ``Batch -> Reconstruction``."""

from __future__ import annotations

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
        sense = SenseOperator.of(batch)
        image = conjugate_gradient(
            lambda x: sense.normal(x) + self.weight * x,
            sense.adjoint(batch.masked_kspace),
            tolerance=self.tolerance,
            max_iterations=self.iterations,
        )
        return Reconstruction(image)
