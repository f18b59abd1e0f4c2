"""Coronal knee slices of simulated subjects, made from signed distances of smooth shapes.

World coordinates in millimetres: ``x`` to the lateral side, ``y`` to the front, ``z`` upwards; the
joint line lies at ``z = 0``. Sizes are those of an average adult knee and vary between subjects.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mrisem.anatomy.fields import child, coverage, smooth_field, uniform
from mrisem.anatomy.knee_joint import Joint
from mrisem.anatomy.knee_shapes import Bones, bones, muscles, vessels
from mrisem.anatomy.lesions import Presence, check_presence
from mrisem.anatomy.subject import SimulatedSubject
from mrisem.anatomy.tissue import Layer, Sequence, Tissue
from mrisem.errors import InputError

ACQUISITIONS: dict[str, Sequence] = {
    "CORPD_FBK": Sequence(2600, 30),
    "CORPDFS_FBK": Sequence(2900, 32, fat_left=0.10),
}
TISSUES: dict[str, Tissue] = {
    "skin": Tissue(0.40, 900, 25),
    "fat": Tissue(0.95, 350, 110, fat=0.97, texture=0.09),
    "septum": Tissue(0.60, 1000, 45),
    "muscle": Tissue(0.60, 1250, 33, texture=0.1),
    "fascia": Tissue(0.20, 900, 20),
    "marrow": Tissue(0.80, 380, 90, fat=0.97, texture=0.1),
    "red marrow": Tissue(0.80, 700, 60, fat=0.75, texture=0.12),
    "bone": Tissue(0.05, 900, 8),
    "cartilage": Tissue(0.75, 1150, 42, texture=0.08),
    "meniscus": Tissue(0.16, 900, 16),
    "ligament": Tissue(0.18, 900, 18),
    "fluid": Tissue(1.0, 2500, 500, texture=0.03),
    "blood": Tissue(0.9, 1500, 150, texture=0.05),
}
_FRONT, _HALF_RANGE = 6.0, 28.0  # y of slice position 0, and distance to positions -1 and 1, mm
_JOINT_HEIGHT = 8.0  # of the joint line above the centre of the image, mm


class Subject(SimulatedSubject):
    """Simulated knee; slice positions run from behind the joint to the patella.

    Args:
        seed: seed of everything that differs between subjects.
        size: number of pixels along the edge of the square field of view.
        lesions: ``some`` or ``none``; knees have no lesions in either case.

    Raises:
        InputError: for ``lesions="all"``.
    """

    field_of_view, stream, in_air = 150.0, 4, False
    across, half_range = 1, _HALF_RANGE
    sequences, acquisitions = ACQUISITIONS, tuple(ACQUISITIONS)
    brightest = ("fat", "fluid")

    def __init__(self, seed: int, size: int = 192, lesions: Presence = "some"):
        check_presence(lesions)
        if lesions == "all":
            raise InputError(
                "simulated knees have no lesions, got lesions=all; set lesions=some or "
                "anatomies=[brain]"
            )
        super().__init__(seed, size)
        self.lesions = []
        # Lengths in mm. The order of the draws defines the subjects: add new ones at the end.
        generator = child(seed, 3)
        self.warp = smooth_field(generator, 3, 160, 45)
        self.rough = smooth_field(generator, 4, 120, 12)
        self.strands = smooth_field(generator, 3, 120, 11)
        self.side = 1.0 if uniform(generator, 0, 1) < 0.5 else -1.0
        self.scale = uniform(generator, 0.92, 1.06)
        self.shift = (uniform(generator, -7, 7) - _JOINT_HEIGHT, uniform(generator, -5, 5))
        self.front = uniform(generator, -3, 3)
        self.tilt = uniform(generator, -0.06, 0.06)
        self.fat_thickness = uniform(generator, 4, 11)
        self.girth = uniform(generator, 46, 52)
        self.joint = Joint(
            cartilage=uniform(generator, 1.6, 2.3),
            effusion=uniform(generator, -1.0, 2.0),
            edge=1.2 * self.pixel,
        )
        self.tissues = {name: tissue.vary(generator, 0.06) for name, tissue in TISSUES.items()}

    def _points(self, positions: tuple[float, ...], shape: tuple[int, int]) -> Tensor:
        """Compute world coordinates ``(slice, y, x, 3)`` of the slices, with the deformation."""
        up, right = self._plane(shape)
        y = _FRONT + self.front + torch.tensor(positions)[:, None, None] * _HALF_RANGE
        x = self.side * (right + self.tilt * up)
        z = up - self.tilt * right
        points = torch.stack(torch.broadcast_tensors(x, y.to(x.dtype), z), dim=-1)
        points = points / self.scale
        return points + 1.8 * self.warp.sample(points).movedim(0, -1)

    def _layers(self, positions: tuple[float, ...], shape: tuple[int, int]) -> list[Layer]:
        """See `SimulatedSubject`."""
        points = self._points(positions, shape)
        solid = bones(points)
        # textures of different wavelength, mm: along y and x
        rough = self.rough.sample(points)
        grain = self._detail(positions, shape, 1.2, 1.2)
        streaks = self._detail(positions, shape, 2.6, 0.9)
        mottle = self._detail(positions, shape, 6.0, 6.0)
        spots = self._detail(positions, shape, 3.0, 2.4)
        return [
            *self._soft(points, grain, streaks, mottle, spots),
            *self.joint.layers(points, solid, rough, grain),
            *self._bone(points, solid, rough, streaks, mottle),
        ]

    def _soft(
        self, points: Tensor, grain: Tensor, streaks: Tensor, mottle: Tensor, spots: Tensor
    ) -> list[Layer]:
        """Make skin, subcutaneous fat with septa and small vessels, fascia and muscles."""
        edge = 1.2 * self.pixel
        x, y, z = points.unbind(-1)
        # fields stretched along the leg: septa and seams lie where one of them crosses a value
        strands = self.strands.sample(points * torch.tensor([1.0, 1.0, 0.35]))
        # distance from the elliptical surface of the leg, which widens away from the joint
        girth = self.girth + 0.0016 * z**2 + 0.03 * z
        leg = ((x / girth) ** 2 + ((y + 4) / (girth + 6)) ** 2).sqrt() * girth - girth
        fat = coverage(leg + 1.2, edge)
        depth = leg + self.fat_thickness + 1.2 * strands[0]
        septa = torch.exp(-((strands[1] / 0.06) ** 2)) * (strands[2] > -0.3) * fat
        # muscle fills its shapes, but not the subcutaneous fat
        flesh = torch.maximum(muscles(points) + 0.6 * strands[0], depth)
        inside = coverage(flesh, edge)
        seams = torch.exp(-(((strands[2] - 0.3) / 0.05) ** 2)) * inside
        dots = torch.sigmoid((spots - 2.6) / 0.15) * fat
        return [
            Layer("skin", coverage(leg, edge)),
            Layer("fat", fat, 1 + 0.04 * grain + 0.05 * mottle),
            Layer("septum", 0.35 * septa),
            Layer("fascia", 0.6 * coverage(depth.abs() - 0.5, edge)),
            *(Layer(name, 0.9 * coverage(distance, edge)) for name, distance in vessels(points)),
            Layer("blood", 0.8 * dots),
            Layer("fascia", 0.8 * coverage(flesh - 0.9, edge)),
            Layer("muscle", inside, 1 + 0.05 * streaks + 0.04 * grain + 0.05 * mottle),
            Layer("fat", 0.35 * seams),
        ]

    def _bone(
        self, points: Tensor, solid: Bones, rough: Tensor, streaks: Tensor, mottle: Tensor
    ) -> list[Layer]:
        """Make cortical bone, marrow with trabeculae, and the scars of the growth plates."""
        x, _, z = points.unbind(-1)
        edge = 1.2 * self.pixel
        bone = torch.minimum(solid.femur, torch.minimum(solid.tibia, solid.fibula))
        bone = torch.minimum(bone, solid.patella)
        # the cortex is thin near the joint and thick along the shafts
        cortex = 0.8 + 1.7 * torch.sigmoid((z.abs() - 42) / 5)
        marrow = coverage(bone + cortex, edge)
        scar = (z - 30 - 0.004 * x**2 - 1.5 * rough[0]).abs()
        scar = torch.minimum(scar, (z + 24 - 1.5 * rough[0]).abs()) - 0.35
        # patches of red marrow, away from the joint
        red = torch.sigmoid((mottle + 0.5 * rough[1] - 1.2) / 0.4)
        red = red * torch.sigmoid((z.abs() - 32) / 6)
        trabeculae = 1 + 0.05 * streaks + 0.04 * mottle + 0.03 * rough[2]
        # marrow signal falls towards the cortex, where trabeculae are denser
        dense = 1 - 0.22 * torch.exp(-(((bone + cortex) / 2.5) ** 2))
        return [
            Layer("bone", coverage(bone, edge)),
            Layer("marrow", marrow, trabeculae * dense),
            Layer("red marrow", 0.6 * red * marrow, trabeculae),
            Layer("bone", 0.35 * coverage(scar, edge) * marrow * (rough[3] > -0.6)),
        ]
