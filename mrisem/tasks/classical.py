"""Classical baselines as tasks."""

from __future__ import annotations

from collections.abc import Callable

from mrisem.tasks.base import ReconstructionTask
from mrisem.tasks.curves import FitCurves
from mrisem.types import Batch, Reconstruction


class ClassicalTask(ReconstructionTask):
    """Task of a method without weights.

    Args:
        method: function ``Batch -> Reconstruction`` (see `mrisem.baselines`).
    """

    def __init__(self, method: Callable[[Batch], Reconstruction]) -> None:
        super().__init__()
        self.method = method

    def solve(self, batch: Batch) -> tuple[Reconstruction, FitCurves]:
        """Reconstruct a batch."""
        return self.method(batch), FitCurves()
