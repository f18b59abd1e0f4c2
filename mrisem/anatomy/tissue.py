"""Tissues, signal equations of sequences, and images painted from layers of tissue.

Relaxation times are round literature values for 1.5 to 3 T, in milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tissue:
    """Properties of a tissue that decide its signal.

    Args:
        proton_density: proton density relative to water.
        t1: longitudinal relaxation time, ms.
        t2: transverse relaxation time, ms.
        fat: share of the signal that comes from fat, which fat suppression reduces.
        texture: standard deviation of the fine structure, as a share of the signal.
    """

    proton_density: float
    t1: float
    t2: float
    fat: float = 0.0
    texture: float = 0.08

    def vary(self, generator: torch.Generator, spread: float) -> Tissue:
        """Draw the tissue of another subject: each value is multiplied by a normal factor."""
        factor = 1 + spread * torch.randn(3, generator=generator).clamp(-2, 2)
        return replace(
            self,
            proton_density=self.proton_density * (1 + (float(factor[0]) - 1) / 2),
            t1=self.t1 * float(factor[1]),
            t2=self.t2 * float(factor[2]),
        )


@dataclass(frozen=True)
class Sequence:
    """Spin-echo sequence, optionally with an inversion pulse and fat suppression.

    Args:
        repetition_time: TR, ms.
        echo_time: TE, ms.
        inversion_time: TI, ms; None: no inversion.
        fat_left: share of the fat signal that fat suppression leaves; 1: no suppression.
    """

    repetition_time: float
    echo_time: float
    inversion_time: float | None = None
    fat_left: float = 1.0

    def signal(self, tissue: Tissue) -> float:
        """Compute the magnitude of a tissue's signal.

        Spin echo: ``PD (1 - e^(-TR/T1)) e^(-TE/T2)``; inversion recovery: ``PD |1 - 2 e^(-TI/T1) +
        e^(-TR/T1)| e^(-TE/T2)`` (Bernstein, King, Zhou: Handbook of MRI Pulse Sequences,
        chapter 14).

        >>> flair = Sequence(9000, 90, 2500)
        >>> csf, white = Tissue(1, 4200, 1800), Tissue(0.7, 850, 70)
        >>> flair.signal(csf) < 0.1 * flair.signal(white)
        True
        """
        # with inversion: 1 - 2 e^(-TI/T1) + e^(-TR/T1) = 2 - (1 - e^(-TR/T1)) - 2 e^(-TI/T1)
        recovery = 1.0 - math.exp(-self.repetition_time / tissue.t1)
        if self.inversion_time is not None:
            inverted = 2.0 * math.exp(-self.inversion_time / tissue.t1)
            recovery = 2.0 - recovery - inverted
        decay = math.exp(-self.echo_time / tissue.t2)
        suppression = 1 - tissue.fat * (1 - self.fat_left)
        return tissue.proton_density * abs(recovery) * decay * suppression


@dataclass(frozen=True)
class Layer:
    """Tissue and its position.

    Args:
        tissue: name of the tissue.
        cover: ``(slice, y, x)`` share of each pixel, in [0, 1], that hides the layers below.
        shade: ``(slice, y, x)`` factor of the signal (texture); None: 1.
    """

    tissue: str
    cover: Tensor
    shade: Tensor | None = None


def compose(
    layers: list[Layer], tissues: dict[str, Tissue], sequence: Sequence, grain: Tensor
) -> Tensor:
    """Paint layers, bottom first, with the signal of their tissue in a sequence.

    Args:
        layers: tissues and their positions.
        tissues: name -> tissue.
        sequence: sequence that decides the signals.
        grain: ``(slice, y, x)`` fine structure of unit standard deviation; each tissue multiplies
            it with its ``texture``.

    Returns:
        ``(slice, y, x)`` float32, not negative; zero (air) where there is no layer.
    """
    image = torch.zeros_like(layers[0].cover)
    for layer in layers:
        tissue = tissues[layer.tissue]
        signal = sequence.signal(tissue) * (1 + tissue.texture * grain)
        if layer.shade is not None:
            signal = signal * layer.shade
        image = image + layer.cover * (signal - image)
    return image.clamp_min(0)
