"""Axial brain slices of simulated subjects, made from the MNI152 template.

Cerebrospinal fluid, skull and scalp lie around the template at given distances from the brain's
hull. An elastic deformation, sulci, tissue parameters and lesions differ between the subjects.
World coordinates in millimetres: ``x`` to the right, ``y`` to the front, ``z`` upwards (MNI space).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mrisem.anatomy.fields import child, coverage, smooth_field, uniform
from mrisem.anatomy.lesions import Presence, draw_lesions
from mrisem.anatomy.subject import SimulatedSubject
from mrisem.anatomy.template import load_template
from mrisem.anatomy.tissue import Layer, Sequence, Tissue

ACQUISITIONS: dict[str, Sequence] = {
    "AXT1": Sequence(420, 9),
    "AXT2": Sequence(6000, 100),
    "AXFLAIR": Sequence(9000, 90, 2500, fat_left=0.6),
}
TISSUES: dict[str, Tissue] = {
    "skin": Tissue(0.75, 900, 45, texture=0.15),
    "fat": Tissue(0.80, 430, 115, fat=0.9, texture=0.12),
    "muscle": Tissue(0.75, 1300, 38, texture=0.12),
    "bone": Tissue(0.06, 1000, 10),
    "marrow": Tissue(0.60, 520, 70, fat=0.7, texture=0.15),
    "csf": Tissue(1.0, 4200, 1600, texture=0.02),
    "grey": Tissue(0.82, 1320, 100, texture=0.07),
    "white": Tissue(0.70, 720, 70, texture=0.05),
    "lesion": Tissue(0.86, 1600, 170),
    "falx": Tissue(0.35, 900, 25),
    "flow": Tissue(0.25, 250, 40),
}
# Height of slice position 0 and distance to positions -1 and 1; y of the image centre; mm.
_CENTER_Z, _HALF_RANGE_Z = 17.0, 32.0
_CENTER_Y = -18.0
# Intensities of the T1 template, in [0, 1], between fluid and grey and between grey and white.
_CSF_THRESHOLD, _WHITE_THRESHOLD = 0.47, 0.765


class Subject(SimulatedSubject):
    """Simulated head; slice position 0 is at the height of the lateral ventricles.

    Args:
        seed: seed of everything that differs between subjects.
        size: number of pixels along the edge of the square field of view.
        lesions: whether ``some``, ``none`` or ``all`` subjects have lesions; the rest of the
            subject does not depend on it.
    """

    field_of_view, stream, in_air = 236.0, 2, True
    across, half_range = 2, _HALF_RANGE_Z
    sequences, acquisitions = ACQUISITIONS, tuple(ACQUISITIONS)
    brightest = ("fat", "csf")

    def __init__(self, seed: int, size: int = 192, lesions: Presence = "some"):
        super().__init__(seed, size)
        # Lengths in mm. The order of the draws defines the subjects: add new ones at the end.
        generator = child(seed, 1)
        self.warp = smooth_field(generator, 3, 128, 50)
        self.fine_warp = smooth_field(generator, 3, 128, 14)
        self.thickness = smooth_field(generator, 4, 128, 60)
        self.rotation = _rotation(
            [uniform(generator, -limit, limit) for limit in (0.12, 0.05, 0.06)]
        )
        self.stretch = torch.tensor([uniform(generator, 0.95, 1.05) for _ in range(3)])
        self.shift = (uniform(generator, -4, 4), uniform(generator, -4, 4))
        self.scalp = uniform(generator, 1.6, 4.5)
        self.diploe = uniform(generator, 1.2, 3.2)
        self.atrophy = uniform(generator, -0.03, 0.05)
        self.tissues = {name: tissue.vary(generator, 0.03) for name, tissue in TISSUES.items()}
        self.lesions = draw_lesions(generator, lesions)

    def _points(self, positions: tuple[float, ...], shape: tuple[int, int]) -> Tensor:
        """Compute world coordinates ``(slice, y, x, 3)`` of the slices, before the deformation."""
        up, right = self._plane(shape)
        z = torch.tensor(positions)[:, None, None] * _HALF_RANGE_Z
        plane = torch.stack(torch.broadcast_tensors(right, up, z.to(right.dtype)), dim=-1)
        turned = plane @ self.rotation.T * self.stretch
        return turned + torch.tensor([0.0, _CENTER_Y, _CENTER_Z])

    def _layers(self, positions: tuple[float, ...], shape: tuple[int, int]) -> list[Layer]:
        """See `SimulatedSubject`."""
        template, hull = load_template()
        points = self._points(positions, shape)
        # the coarse deformation changes the head, the fine one the sulci within it
        warped = points + 2.2 * self.warp.sample(points).movedim(0, -1)
        folded = warped + 0.9 * self.fine_warp.sample(points).movedim(0, -1)
        distance, near_ventricle = hull.sample(warped)
        t1, nuclei = template.sample(folded)
        # deep grey nuclei: the template's grey matter far from the hull, not at the ventricles
        nuclei = nuclei * torch.sigmoid((-distance - 24) / 3) * (1 - near_ventricle)
        detail, coarse, fine = (
            self._detail(positions, shape, wavelength) for wavelength in (2.2, 6.0, 1.3)
        )
        head, inside = self._head(points, distance, fine)
        brain = self._brain(t1, near_ventricle, nuclei, inside, (detail, coarse, fine))
        lesions = [lesion.layer(folded, coarse, inside, t1, self.pixel) for lesion in self.lesions]
        return head + brain + lesions + self._vessels(folded, distance, t1, detail, inside)

    def _head(self, points: Tensor, distance: Tensor, fine: Tensor) -> tuple[list[Layer], Tensor]:
        """Make scalp and skull as shells around the hull; return also the cover of the inside."""
        edge = 1.3 * self.pixel
        variation = self.thickness.sample(points)
        # outer distance of each shell from the hull, mm, from the inside outwards
        fluid = (1.2 + 0.7 * variation[0]).clamp_min(0.4)
        inner = fluid + 1.5
        diploe = inner + (self.diploe * (1 + 0.5 * variation[1])).clamp_min(0.3)
        temple = self._temple(points)
        outer = diploe * (1 - 0.15 * temple) + 1.5
        muscle = outer + 7.0 * temple
        fat = muscle + 0.7 + (self.scalp * (1 + 0.3 * variation[2])).clamp_min(1.2)
        skin = fat + 1.7 + 0.2 * variation[3]
        lobules = 1 + 0.12 * fine
        shells = [
            ("skin", skin, 1 + 0.1 * fine),
            ("fat", fat, lobules * (1 + 0.15 * variation[0])),
            ("falx", muscle + 0.7, None),
            ("muscle", muscle, 1 + 0.08 * fine),
            ("bone", outer, None),
            ("marrow", diploe, 0.65 + 0.35 * variation[3].clamp(-1, 1) + 0.12 * fine),
            ("bone", inner, None),
        ]
        layers = [
            Layer(name, coverage(distance - outer_distance, edge), shade)
            for name, outer_distance, shade in shells
        ]
        return layers, coverage(distance - fluid, edge)

    def _temple(self, points: Tensor) -> Tensor:
        """Cover of the temporal muscle in [0, 1]: lateral, anterior and low."""
        x, y, z = points.unbind(-1)
        along = torch.exp(-(((y - 18) / 24) ** 4)) * torch.sigmoid((28 - z) / 6)
        return along * torch.sigmoid((x.abs() - 38) / 5)

    def _brain(
        self,
        t1: Tensor,
        near_ventricle: Tensor,
        nuclei: Tensor,
        inside: Tensor,
        textures: tuple[Tensor, ...],
    ) -> list[Layer]:
        """Make fluid, grey and white matter by soft thresholds of the template.

        Texture shifts the thresholds from pixel to pixel, which makes the boundaries irregular.
        """
        detail, coarse, fine = textures
        fluid = _CSF_THRESHOLD + self.atrophy + 0.035 * detail + 0.02 * coarse
        is_brain = torch.sigmoid((t1 - fluid) / 0.035)
        # The average template shows a grey seam at the walls of the ventricles: lower the threshold
        # of white matter there. Nuclei are grey although the template is bright.
        white = _WHITE_THRESHOLD - 0.17 * near_ventricle + 0.02 * detail + 0.012 * coarse
        is_white = torch.sigmoid((t1 - white) / 0.03) * (1 - 0.85 * nuclei)
        grain = 1 + 0.015 * fine + 0.02 * coarse
        return [
            Layer("csf", inside, 1 + 0.03 * coarse),
            Layer("grey", inside * is_brain, grain),
            Layer("white", inside * is_brain * is_white, grain),
        ]

    def _vessels(
        self, points: Tensor, distance: Tensor, t1: Tensor, detail: Tensor, inside: Tensor
    ) -> list[Layer]:
        """Make falx, superior sagittal sinus and small vessels in the sulci."""
        x, y, _ = points.unbind(-1)
        gap = torch.sigmoid((0.60 - t1) / 0.04) * inside
        deep = torch.sigmoid((-distance - 34) / 3)
        # the falx is a thin sheet in the midline, the sinus a tube behind, at the hull
        falx = coverage(x.abs() - 0.6, 1.3 * self.pixel) * gap * (1 - deep)
        back = torch.sigmoid((-60 - y) / 4)
        sinus = coverage(x.abs() + 0.6 * (-2 - distance).abs() - 3.5, 1.5 * self.pixel)
        # rare maxima of the texture, within the sulci
        dots = torch.sigmoid((detail - 2.3) / 0.15) * gap
        return [
            Layer("falx", 0.8 * falx),
            Layer("flow", 0.9 * sinus * back),
            Layer("flow", 0.8 * dots * torch.sigmoid((distance + 45) / 3)),
        ]


def _rotation(angles: list[float]) -> Tensor:
    """Make the matrix of rotations about x, y and z, in that order; angles in radians."""
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [k for k in range(3) if k != axis]
        turn = torch.eye(3)
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return matrix
