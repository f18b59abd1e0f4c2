"""Tissues and the signal equations that turn them into contrasts.

Relaxation times are round literature values for 1.5 to 3 T, in milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tissue:
    """Proton density (share of water's), longitudinal and transverse relaxation times (ms).

    Args:
        proton_density: relative to water.
        t1: ms.
        t2: ms.
        fat: share of the signal that a fat suppression removes.
    """

    proton_density: float
    t1: float
    t2: float
    fat: float = 0.0

    def vary(self, generator: torch.Generator, spread: float) -> Tissue:
        """Return the tissue of another subject: each value times a normal factor."""
        factor = 1 + spread * torch.randn(3, generator=generator).clamp(-2, 2)
        return Tissue(
            self.proton_density * (1 + (float(factor[0]) - 1) / 2),
            self.t1 * float(factor[1]),
            self.t2 * float(factor[2]),
            self.fat,
        )


@dataclass(frozen=True)
class Sequence:
    """A spin-echo sequence, with an inversion before it and fat suppression when asked for.

    Args:
        repetition_time: TR, ms.
        echo_time: TE, ms.
        inversion_time: TI, ms, or None without inversion.
        fat_left: share of the fat signal that is left.
    """

    repetition_time: float
    echo_time: float
    inversion_time: float | None = None
    fat_left: float = 1.0

    def signal(self, tissue: Tissue) -> float:
        """Magnitude of the signal.

        Spin echo: ``PD (1 - e^(-TR/T1)) e^(-TE/T2)``; inversion recovery: ``PD |1 - 2 e^(-TI/T1) +
        e^(-TR/T1)| e^(-TE/T2)`` (Bernstein, King, Zhou: Handbook of MRI Pulse Sequences,
        chapter 14).

        >>> flair = Sequence(9000, 90, 2500)
        >>> csf, white = Tissue(1, 4200, 1800), Tissue(0.7, 850, 70)
        >>> flair.signal(csf) < 0.1 * flair.signal(white)
        True
        """
        recovery = 1.0 - math.exp(-self.repetition_time / tissue.t1)
        if self.inversion_time is not None:
            inverted = 2.0 * math.exp(-self.inversion_time / tissue.t1)
            recovery = 2.0 - recovery - inverted
        decay = math.exp(-self.echo_time / tissue.t2)
        suppression = 1 - tissue.fat * (1 - self.fat_left)
        return tissue.proton_density * abs(recovery) * decay * suppression
