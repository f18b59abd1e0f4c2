"""Axial brain slices: the MNI152 template, made into a head and into one individual after another.

Around the template we put cerebrospinal fluid, skull and scalp at given distances from the brain's
hull; an elastic deformation, individual sulci, tissue parameters and lesions make the subject.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import pad

from mrisem.anatomy.fields import (
    child,
    coverage,
    plane_points,
    smooth_field,
    texture,
    uniform,
)
from mrisem.anatomy.lesions import Lesion, Presence, draw_lesions, label_lesions
from mrisem.anatomy.paint import Layer, compose, sequence_named
from mrisem.anatomy.template import load_template
from mrisem.anatomy.tissue import Sequence, Tissue

ACQUISITIONS: dict[str, Sequence] = {
    "AXT1": Sequence(420, 9),
    "AXT2": Sequence(6000, 100),
    "AXFLAIR": Sequence(9000, 90, 2500, fat_left=0.6),
}
TISSUES: dict[str, Tissue] = {
    "skin": Tissue(0.75, 900, 45),
    "fat": Tissue(0.80, 430, 115, fat=0.9),
    "muscle": Tissue(0.75, 1300, 38),
    "bone": Tissue(0.06, 1000, 10),
    "marrow": Tissue(0.60, 520, 70, fat=0.7),
    "csf": Tissue(1.0, 4200, 1600),
    "grey": Tissue(0.82, 1320, 100),
    "white": Tissue(0.70, 720, 70),
    "lesion": Tissue(0.86, 1600, 170),
    "falx": Tissue(0.35, 900, 25),
    "flow": Tissue(0.25, 250, 40),
}
FIELD_OF_VIEW = 236.0
_CENTER_Z, _HALF_RANGE_Z = 17.0, 32.0
_CENTER_Y = -18.0
_CSF_THRESHOLD, _WHITE_THRESHOLD = 0.47, 0.765


class Subject:
    """One simulated head; equal seeds give equal heads.

    Args:
        seed: decides everything about the subject.
        size: pixels along the edge of the square field of view of 236 mm.
        lesions: whether ``some``, ``none`` or ``all`` subjects have lesions; nothing else about the
            subject depends on it.
    """

    acquisitions = tuple(ACQUISITIONS)

    def __init__(self, seed: int, size: int = 192, lesions: Presence = "some"):
        self.seed, self.size, self.pixel = seed, size, FIELD_OF_VIEW / size
        generator = child(seed, 1)
        self.warp = smooth_field(generator, 3, 128, 50)
        self.fine_warp = smooth_field(generator, 3, 128, 14)
        self.thickness = smooth_field(generator, 4, 128, 60)
        self.rotation = _rotation([uniform(generator, -a, a) for a in (0.12, 0.05, 0.06)])
        self.stretch = torch.tensor([uniform(generator, 0.95, 1.05) for _ in range(3)])
        self.shift = (uniform(generator, -4, 4), uniform(generator, -4, 4))
        self.scalp = uniform(generator, 1.6, 4.5)
        self.diploe = uniform(generator, 1.2, 3.2)
        self.atrophy = uniform(generator, -0.03, 0.05)
        self.tissues = {name: t.vary(generator, 0.03) for name, t in TISSUES.items()}
        self.lesions: list[Lesion] = draw_lesions(generator, lesions)
        self._cached: tuple[tuple[float, ...], list[Layer]] = ((), [])

    def images(
        self, acquisition: str, positions: Iterable[float], shape: tuple[int, int] | None = None
    ) -> Tensor:
        """Clean magnitude images; asking for several contrasts of the same positions is cheap.

        Args:
            acquisition: AXT1, AXT2 or AXFLAIR.
            positions: slice positions in [-1, 1], 0 at the height of the lateral ventricles.
            shape: ``(y, x)`` of a larger field of view around the same centre, filled up with air;
                default ``(size, size)``.

        Returns:
            ``(slice, y, x)`` float32, anterior on top, brightest tissue about 1.

        Raises:
            InputError: for an unknown acquisition.
        """
        sequence = sequence_named(acquisition, ACQUISITIONS)
        image = compose(self._painted(tuple(positions)), self.tissues, sequence)
        image = image / max(sequence.signal(self.tissues[name]) for name in ("fat", "csf"))
        return image if shape is None else _with_air(image, shape)

    def lesion_labels(self, positions: Iterable[float]) -> Tensor:
        """Which pixels of the slices belong to which lesion.

        Args:
            positions: as for `images`.

        Returns:
            ``(slice, size, size)`` uint8: 0, or 1 + the lesion's place in ``lesions``.
        """
        layers = self._painted(tuple(positions))
        if not self.lesions:
            return torch.zeros(layers[0].cover.shape, dtype=torch.uint8)
        own = [layer for layer in layers if layer.tissue == "lesion"]
        return label_lesions(self.lesions, own)

    def _painted(self, positions: tuple[float, ...]) -> list[Layer]:
        """The slices' layers, kept for the next contrast."""
        if self._cached[0] != positions:
            self._cached = (positions, self._layers(positions))
        return self._cached[1]

    def _points(self, positions: tuple[float, ...]) -> Tensor:
        """World coordinates ``(slice, y, x, 3)`` of the slices, before the individual warp."""
        up, right = plane_points((self.size, self.size), self.pixel, self.shift)
        z = torch.tensor(positions)[:, None, None] * _HALF_RANGE_Z
        plane = torch.stack(
            torch.broadcast_tensors(right[None], up[None], z.to(right.dtype)), dim=-1
        )
        turned = plane @ self.rotation.T * self.stretch
        return turned + torch.tensor([0.0, _CENTER_Y, _CENTER_Z])

    def _layers(self, positions: tuple[float, ...]) -> list[Layer]:
        """Everything in the slices, bottom first."""
        template, hull = load_template()
        points = self._points(positions)
        bent = points + 2.2 * self.warp.sample(points).movedim(0, -1)
        crumpled = bent + 0.9 * self.fine_warp.sample(points).movedim(0, -1)
        distance, near = hull.sample(bent)
        t1, nuclei = template.sample(crumpled)
        nuclei = nuclei * torch.sigmoid((-distance - 24) / 3) * (1 - near)
        detail = torch.stack([self._detail(position, 2.2) for position in positions])
        coarse = torch.stack([self._detail(position, 6.0) for position in positions])
        fine = torch.stack([self._detail(position, 1.3) for position in positions])
        head, inside = self._head(points, distance, fine)
        brain = self._brain(t1, near, nuclei, inside, detail, coarse, fine)
        lesions = [
            lesion.layer(crumpled, coarse, inside, t1, self.pixel) for lesion in self.lesions
        ]
        return head + brain + lesions + self._vessels(crumpled, distance, t1, detail, inside)

    def _detail(self, position: float, wavelength: float) -> Tensor:
        """Texture of one slice, the same in every contrast; ``wavelength`` in mm."""
        generator = child(self.seed, 2, round(position * 1e6), round(wavelength * 10))
        pixels = wavelength / self.pixel
        return texture(generator, (self.size, self.size), (pixels, pixels))

    def _head(self, points: Tensor, distance: Tensor, fine: Tensor) -> tuple[list[Layer], Tensor]:
        """Scalp and skull as shells around the hull; also returns the cover of what is inside."""
        edge = 1.3 * self.pixel
        wave = self.thickness.sample(points)
        fluid = (1.2 + 0.7 * wave[0]).clamp_min(0.4)
        inner = fluid + 1.5
        diploe = inner + (self.diploe * (1 + 0.5 * wave[1])).clamp_min(0.3)
        temple = self._temple(points)
        outer = diploe * (1 - 0.15 * temple) + 1.5
        muscle = outer + 7.0 * temple
        fat = muscle + 0.7 + (self.scalp * (1 + 0.3 * wave[2])).clamp_min(1.2)
        skin = fat + 1.7 + 0.2 * wave[3]
        lobules = 1 + 0.12 * fine
        shells = [
            ("skin", skin, 1 + 0.1 * fine),
            ("fat", fat, lobules * (1 + 0.15 * wave[0])),
            ("falx", muscle + 0.7, None),
            ("muscle", muscle, 1 + 0.08 * fine),
            ("bone", outer, None),
            ("marrow", diploe, 0.65 + 0.35 * wave[3].clamp(-1, 1) + 0.12 * fine),
            ("bone", inner, None),
        ]
        layers = [Layer(name, coverage(distance - d, edge), shade) for name, d, shade in shells]
        return layers, coverage(distance - fluid, edge)

    def _temple(self, points: Tensor) -> Tensor:
        """Where the temporal muscle lies: lateral, anterior, low; in [0, 1]."""
        x, y, z = points.unbind(-1)
        along = torch.exp(-(((y - 18) / 24) ** 4)) * torch.sigmoid((28 - z) / 6)
        return along * torch.sigmoid((x.abs() - 38) / 5)

    def _brain(
        self,
        t1: Tensor,
        near: Tensor,
        nuclei: Tensor,
        inside: Tensor,
        detail: Tensor,
        coarse: Tensor,
        fine: Tensor,
    ) -> list[Layer]:
        """Fluid, grey and white matter by soft thresholds of the template, roughened by texture."""
        fluid = _CSF_THRESHOLD + self.atrophy + 0.035 * detail + 0.02 * coarse
        solid = torch.sigmoid((t1 - fluid) / 0.035)
        white = _WHITE_THRESHOLD - 0.17 * near + 0.02 * detail + 0.012 * coarse
        pale = torch.sigmoid((t1 - white) / 0.03) * (1 - 0.85 * nuclei)
        grain = 1 + 0.015 * fine + 0.02 * coarse
        return [
            Layer("csf", inside, 1 + 0.03 * coarse),
            Layer("grey", inside * solid, grain),
            Layer("white", inside * solid * pale, grain),
        ]

    def _vessels(
        self, points: Tensor, distance: Tensor, t1: Tensor, detail: Tensor, inside: Tensor
    ) -> list[Layer]:
        """Falx, superior sagittal sinus and small sulcal vessels."""
        x, y, _ = points.unbind(-1)
        gap = torch.sigmoid((0.60 - t1) / 0.04) * inside
        deep = torch.sigmoid((-distance - 34) / 3)
        falx = coverage(x.abs() - 0.6, 1.3 * self.pixel) * gap * (1 - deep)
        back = torch.sigmoid((-60 - y) / 4)
        sinus = coverage(x.abs() + 0.6 * (-2 - distance).abs() - 3.5, 1.5 * self.pixel)
        dots = torch.sigmoid((detail - 2.3) / 0.15) * gap
        return [
            Layer("falx", 0.8 * falx),
            Layer("flow", 0.9 * sinus * back),
            Layer("flow", 0.8 * dots * torch.sigmoid((distance + 45) / 3)),
        ]


def _with_air(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """Put ``(slice, y, x)`` into a larger grid so that the pixels ``n // 2`` coincide."""
    sides: list[int] = []
    for old, new in zip(image.shape[:0:-1], shape[::-1], strict=True):
        before = new // 2 - old // 2
        sides += [before, new - old - before]
    return pad(image, sides)


def _rotation(angles: list[float]) -> Tensor:
    """Rotation matrix about x, y and z, in that order; angles in radians."""
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [k for k in range(3) if k != axis]
        turn = torch.eye(3)
        turn[first, first] = turn[second, second] = math.cos(angle)
        turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return matrix
