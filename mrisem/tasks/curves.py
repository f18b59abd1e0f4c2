"""What a fit logs."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from mrisem.physics.sense import SenseOperator
from mrisem.tasks.guidance import Guidance
from mrisem.types import Batch, SliceInfo


@dataclass
class FitCurves:
    """What was logged while a batch was fitted.

    Args:
        rows: of ``fit.csv``: file, slice, iteration, name, value.
        zero_filled: signature of the zero-filled images, level -> ``(batch, feature)``.
        paths: the reconstructions' signatures, oldest first: iteration, level -> the same.
        bank: signature of the bank, level -> positives, negatives.
    """

    rows: list[tuple[str, int, int, str, float]] = field(default_factory=list)
    zero_filled: dict[str, Tensor] = field(default_factory=dict)
    paths: list[tuple[int, dict[str, Tensor]]] = field(default_factory=list)
    bank: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def add(self, infos: tuple[SliceInfo, ...], iteration: int, values: dict[str, Tensor]) -> None:
        """Add one row for each slice and value; values are ``(batch,)``."""
        for name, value in values.items():
            for info, number in zip(infos, value.tolist(), strict=True):
                self.rows.append((info.file, info.slice, iteration, name, number))

    def add_image(
        self, batch: Batch, iteration: int, image: Tensor, guidance: Guidance, *, final: bool
    ) -> None:
        """Add what the prior says of the images at an iteration, or of the final ones."""
        self.add(batch.info, iteration, guidance.diagnose(image, None if final else iteration))
        if final:
            self.add(batch.info, iteration, guidance.similarities(image))
        self.paths.append((iteration, guidance.signature(image)))

    def begin(self, batch: Batch, guidance: Guidance) -> None:
        """Note where the bank and the zero-filled images stand."""
        self.bank = guidance.prior.bank_signature()
        zero_filled = SenseOperator.of(batch).adjoint(batch.masked_kspace)
        self.zero_filled = guidance.signature(zero_filled)
