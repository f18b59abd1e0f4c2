"""Simulated brain lesions: white-matter hyperintensities, sometimes a mass, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mrisem.anatomy.fields import coverage, uniform
from mrisem.anatomy.tissue import Layer
from mrisem.errors import InputError

Presence = Literal["some", "none", "all"]
_SHARE_WITH_SPOTS, _SHARE_WITH_MASS = 0.4, 0.12  # of the subjects


@dataclass(frozen=True)
class Lesion:
    """Ellipsoid with an irregular edge.

    Args:
        center: world coordinates ``(x, y, z)`` of the centre, mm.
        radii: semi-axes along x, y and z, mm.
        strength: cover at the centre, in [0, 1].
        blur: width of the edge, mm.
        only_white: whether the lesion spares grey matter and fluid.
    """

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    strength: float
    blur: float
    only_white: bool

    def layer(
        self, points: Tensor, ripple: Tensor, inside: Tensor, t1: Tensor, pixel: float
    ) -> Layer:
        """Make the layer of the lesion in some slices.

        Args:
            points: ``(slice, y, x, 3)`` world coordinates, mm.
            ripple: ``(slice, y, x)`` texture that makes the edge irregular.
            inside: ``(slice, y, x)`` cover of the inside of the skull.
            t1: ``(slice, y, x)`` intensity of the T1 template, in [0, 1].
            pixel: edge of a pixel, mm; the edge of the lesion is at least as wide.
        """
        radii = torch.tensor(self.radii)
        reach = ((points - torch.tensor(self.center)) / radii).norm(dim=-1)
        distance = (reach - 1) * min(self.radii) + 0.15 * min(self.radii) * ripple
        cover = self.strength * coverage(distance, max(self.blur, pixel)) * inside
        if self.only_white:
            cover = cover * torch.sigmoid((t1 - 0.74) / 0.02)
        return Layer("lesion", cover)


def draw_lesions(generator: torch.Generator, presence: Presence = "some") -> list[Lesion]:
    """Draw the lesions of a subject.

    Args:
        generator: source of randomness.
        presence: ``some``: subjects have lesions with given probabilities; ``none``: no subject has
            lesions; ``all``: subjects who would have none get small ones.
    """
    check_presence(presence)
    if presence == "none":
        return []
    lesions: list[Lesion] = []
    if uniform(generator, 0, 1) < _SHARE_WITH_SPOTS:
        lesions += _spots(generator)
    if uniform(generator, 0, 1) < _SHARE_WITH_MASS:
        lesions += _mass(generator)
    return lesions or (_spots(generator) if presence == "all" else [])


def check_presence(presence: str) -> None:
    """Raise InputError for a word that is not one of `Presence`."""
    if presence not in get_args(Presence):
        raise InputError(
            f"lesions must be one of {[*get_args(Presence)]}, got {presence!r}; set lesions=some"
        )


def label_lesions(lesions: Sequence[Lesion], layers: Sequence[Layer]) -> Tensor:
    """Label the pixels of lesions: those with at least half the cover of the lesion's centre.

    Args:
        lesions: lesions of a subject.
        layers: all layers of some slices, with those of the lesions in the same order.

    Returns:
        ``(slice, y, x)`` uint8: 0, or 1 + index of the lesion; the later one where two overlap.
    """
    labels = torch.zeros(layers[0].cover.shape, dtype=torch.uint8)
    lesion_layers = [layer for layer in layers if layer.tissue == "lesion"]
    for number, (lesion, layer) in enumerate(zip(lesions, lesion_layers, strict=True), 1):
        labels[layer.cover > 0.5 * lesion.strength] = number
    return labels


def _side(generator: torch.Generator) -> float:
    """Draw a side of the brain: 1 or -1."""
    return 1.0 if uniform(generator, 0, 1) < 0.5 else -1.0


def _spots(generator: torch.Generator) -> list[Lesion]:
    """Draw small hyperintensities in the white matter beside or above the ventricles."""
    spots = []
    for _ in range(int(uniform(generator, 4, 18))):
        x = _side(generator) * uniform(generator, 14, 38)
        center = (x, uniform(generator, -70, 38), uniform(generator, 2, 44))
        size = uniform(generator, 1.6, 4.0)
        radii = (size, size * uniform(generator, 1, 1.8), size * uniform(generator, 1, 2))
        strength = uniform(generator, 0.5, 0.95)
        spots.append(Lesion(center, radii, strength, 2.0, only_white=True))
    return spots


def _mass(generator: torch.Generator) -> list[Lesion]:
    """Draw a mass and the oedema around it, which follows the white matter."""
    x = _side(generator) * uniform(generator, 20, 45)
    center = (x, uniform(generator, -60, 40), uniform(generator, 0, 35))
    size = uniform(generator, 6, 13)
    radii = (size, size * uniform(generator, 0.8, 1.2), size)
    oedema = (size * 1.8, size * 2.0, size * 1.8)
    return [
        Lesion(center, oedema, 0.6, 6.0, only_white=True),
        Lesion(center, radii, 0.9, 2.0, only_white=False),
    ]
