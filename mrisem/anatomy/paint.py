"""From tissue layers to a contrast: later layers cover earlier ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrisem.anatomy.tissue import Sequence, Tissue
from mrisem.errors import InputError


@dataclass(frozen=True)
class Layer:
    """One tissue and where it lies.

    Args:
        tissue: name of the tissue.
        cover: ``(slice, y, x)`` share of each pixel that it takes from the layers below.
        shade: ``(slice, y, x)`` factor on its signal (texture), or None.
    """

    tissue: str
    cover: Tensor
    shade: Tensor | None = None


def compose(layers: list[Layer], tissues: dict[str, Tissue], sequence: Sequence) -> Tensor:
    """Paint the layers in order with the signal that the sequence gives their tissue.

    Args:
        layers: bottom first; what none covers is air, zero.
        tissues: by name.
        sequence: the contrast.

    Returns:
        ``(slice, y, x)`` float32, not negative.
    """
    image = torch.zeros_like(layers[0].cover)
    for layer in layers:
        signal: Tensor | float = sequence.signal(tissues[layer.tissue])
        if layer.shade is not None:
            signal = signal * layer.shade
        image = image + layer.cover * (signal - image)
    return image.clamp_min(0)


def sequence_named(acquisition: str, known: dict[str, Sequence]) -> Sequence:
    """Look an acquisition up.

    Raises:
        InputError: when it is unknown.
    """
    if acquisition not in known:
        raise InputError(
            f"acquisition must be one of {sorted(known)}, got {acquisition!r}; choose one of these"
        )
    return known[acquisition]
