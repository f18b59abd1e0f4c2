"""Soft tissues between the bones of the knee: fluid, menisci, cartilage and ligaments.

Coordinates as in `mrisem.anatomy.knee`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mrisem.anatomy.fields import coverage
from mrisem.anatomy.knee_shapes import Bones, ligaments
from mrisem.anatomy.shapes import common, ellipsoid
from mrisem.anatomy.tissue import Layer


@dataclass(frozen=True)
class Joint:
    """Properties of a knee joint that differ between subjects.

    Args:
        cartilage: thickness of the cartilage, mm.
        effusion: additional thickness of the fluid, mm; negative in a dry joint.
        edge: width of the boundaries between tissues, mm.
    """

    cartilage: float
    effusion: float
    edge: float

    def layers(self, points: Tensor, solid: Bones, rough: Tensor, grain: Tensor) -> list[Layer]:
        """Make all soft layers of the joint, bottom first.

        Args:
            points: ``(slice, y, x, 3)`` world coordinates, mm.
            solid: bones at these points.
            rough: ``(4, slice, y, x)``, smooth random fields.
            grain: ``(slice, y, x)``, fine texture.
        """
        fibres = 1 + 0.4 * grain + 0.4 * rough[1]
        bands = [coverage(distance + 0.9 * rough[2], self.edge) for distance in ligaments(points)]
        return [
            Layer("fluid", 0.9 * self._pockets(points, solid, rough)),
            *(Layer("ligament", 0.85 * band, fibres) for band in bands),
            Layer("meniscus", self._menisci(points, solid, rough), 1 + 0.25 * grain),
            *self._cartilage(points, solid, 1 + 0.05 * grain + 0.10 * rough[3]),
            Layer("fluid", 0.7 * self._film(points, solid)),
        ]

    def _pockets(self, points: Tensor, solid: Bones, rough: Tensor) -> Tensor:
        """Cover of the fluid in the recesses beside the condyles and in the notch."""
        x, _, z = points.unbind(-1)
        thick = 0.5 + 0.5 * self.effusion + 1.6 * rough[0]
        # a layer around the condyles, at their sides and near the joint line
        beside = coverage(torch.minimum(solid.femur, solid.tibia) - thick, 1.5 * self.edge)
        beside = beside * coverage(x.abs() - 42, 2.0) * coverage((z - 1).abs() - 17, 6.0)
        beside = beside * torch.sigmoid((x.abs() - 31) / 1.5)
        # the notch holds fluid only where a random field, raised by effusion, allows it
        within = ellipsoid(points, (0, -5, 3), (14, 22, 13))
        soaked = torch.sigmoid((rough[1] + 0.4 * self.effusion - 0.5) / 0.2)
        return torch.maximum(beside, coverage(within, 5.0) * soaked)

    def _menisci(self, points: Tensor, solid: Bones, rough: Tensor) -> Tensor:
        """Cover of the menisci: wedges in the gap, thick at the rim, thin towards the middle."""
        x, y, _ = points.unbind(-1)
        # inner edge: an ellipse in the plane of the joint, one for each side
        across = (x.abs() - 19).clamp_min(0) / 18
        ring = (across**2 + ((y + 3) / 27) ** 2 + 1e-6).sqrt()
        inner = (0.58 - ring) * 18 + 0.5 * rough[2]
        outer = common(solid.rim - 0.5 - 0.6 * rough[3], 9 - x.abs(), 1.0)
        # between tibial and femoral cartilage, and not higher than a rim that is lower in front
        below = self.cartilage - 0.3 - solid.plateau
        height = (7.5 - 4.0 * ((y + 3) / 24) ** 2).clamp_min(2)
        above = torch.maximum(self.cartilage - solid.femur, solid.plateau - height)
        return coverage(
            common(common(below, above, 0.8), common(inner, outer, 2.0), 1.2), self.edge
        )

    def _cartilage(self, points: Tensor, solid: Bones, shade: Tensor) -> list[Layer]:
        """Make the cartilage of condyles, plateau, trochlea and patella; the notch has none."""
        x, y, z = points.unbind(-1)
        beside = torch.maximum(torch.sigmoid((x.abs() - 11) / 0.8), torch.sigmoid((y - 17) / 1.5))
        low = torch.sigmoid((13 - z) / 2.0)
        condyles = coverage(solid.femur - self.cartilage, self.edge) * low * beside
        half = self.cartilage / 2
        slab = torch.maximum((solid.plateau - half).abs() - half, solid.rim + 1.5)
        plateau = coverage(slab, self.edge) * torch.sigmoid((x.abs() - 8) / 0.8)
        trochlea = coverage(solid.femur - 2.4, self.edge) * torch.sigmoid((y - 21) / 2)
        patella = coverage(solid.patella - 2.8, self.edge) * coverage(y - 38, 3.0)
        covers = (condyles, plateau, trochlea * coverage(z - 38, 6.0), patella)
        return [Layer("cartilage", cover, shade) for cover in covers]

    def _film(self, points: Tensor, solid: Bones) -> Tensor:
        """Cover of the thin film of fluid where two cartilages meet."""
        x, _, _ = points.unbind(-1)
        line = (solid.femur - solid.plateau).abs() - 0.4
        away = torch.maximum(solid.rim + 3, 9 - x.abs())
        away = torch.maximum(away, torch.maximum(solid.femur - 5, -solid.plateau))
        return coverage(torch.maximum(line, away), self.edge)
