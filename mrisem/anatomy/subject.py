"""Base of simulated subjects: tissues are painted once, and give images of any contrast."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from mrisem.anatomy.fields import child
from mrisem.anatomy.lesions import Lesion, label_lesions
from mrisem.anatomy.tissue import Layer, Tissue, compose
from mrisem.anatomy.tissue import Sequence as PulseSequence
from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop

_GRAIN = 77  # number of the random stream of fine structure
_SINGLE = 5.0  # mm, thickness of a slice that has no neighbour
_LOWEST = 1 / 25  # cycles per mm; below, the power of fine structure is constant


class SimulatedSubject:
    """Simulated subject; equal seeds give equal subjects.

    Args:
        seed: seed of everything that differs between subjects.
        size: number of pixels along the edge of the square field of view.
    """

    field_of_view: ClassVar[float]  # edge of the square, mm
    sequences: ClassVar[dict[str, PulseSequence]]
    brightest: ClassVar[tuple[str, str]]  # tissues of which the brighter one gets the signal 1
    stream: ClassVar[int]  # number of the texture's random stream
    in_air: ClassVar[bool]  # whether the square field of view holds the whole object
    across: ClassVar[int]  # world axis across the slices: 1 of coronal, 2 of axial ones
    half_range: ClassVar[float]  # mm from the middle to slice position 1
    tissues: dict[str, Tissue]
    lesions: list[Lesion]
    shift: tuple[float, float]  # world coordinates (upwards, rightwards) of the centre, mm

    def __init__(self, seed: int, size: int):
        self.seed, self.size, self.pixel = seed, size, self.field_of_view / size
        self._cached: tuple[object, list[Layer]] = (None, [])

    def images(
        self, acquisition: str, positions: Iterable[float], shape: tuple[int, int] | None = None
    ) -> Tensor:
        """Make magnitude images without noise.

        The painted tissues are kept, so further contrasts of the same positions take little time.

        Args:
            acquisition: fastMRI's name of the contrast, one of the class's ``acquisitions``.
            positions: slice positions in [-1, 1].
            shape: ``(y, x)`` of a larger field of view around the same centre; None:
                ``(size, size)``.

        Returns:
            ``(slice, y, x)`` float32; the brightest tissue is about 1.

        Raises:
            InputError: for an unknown acquisition.
        """
        if acquisition not in self.sequences:
            raise InputError(
                f"acquisition must be one of {sorted(self.sequences)}, got {acquisition!r}; set "
                "one of them"
            )
        square = (self.size, self.size)
        shape = shape or square
        sequence = self.sequences[acquisition]
        painted = square if self.in_air else shape
        positions = tuple(positions)
        grain = self._grain(acquisition, positions, painted)
        image = compose(self._painted(positions, painted), self.tissues, sequence, grain)
        image = image / max(sequence.signal(self.tissues[name]) for name in self.brightest)
        margins: list[
            int
        ] = []  # air on both sides of each axis, so that the pixels n // 2 coincide
        for n_painted, n_wanted in zip(image.shape[:0:-1], shape[::-1], strict=True):
            before = n_wanted // 2 - n_painted // 2
            margins += [before, n_wanted - n_painted - before]
        return pad(image, margins)

    def lesion_labels(self, positions: Iterable[float]) -> Tensor:
        """Label lesions, ``(slice, size, size)`` uint8: 0, or 1 + index in ``lesions``."""
        positions = tuple(positions)
        if not self.lesions:
            return torch.zeros(len(positions), self.size, self.size, dtype=torch.uint8)
        return label_lesions(self.lesions, self._painted(positions, (self.size, self.size)))

    def affine(self, positions: Sequence[float]) -> Tensor:
        """``(4, 4)`` float64: (column, row, slice) of images to mm to the right, front and head.

        In the frame in which the subject was drawn, before it was bent and turned.

        Args:
            positions: evenly spaced slice positions; a single slice counts as 5 mm thick.
        """
        affine, up = torch.eye(4, dtype=torch.float64), 3 - self.across
        first, step = positions[0] * self.half_range, _SINGLE
        if len(positions) > 1:
            step = (positions[1] - positions[0]) * self.half_range
        affine[:3, :3] = 0
        affine[0, 0], affine[up, 1], affine[self.across, 2] = self.pixel, -self.pixel, step
        middle = self.size // 2 * self.pixel
        affine[0, 3], affine[up, 3] = self.shift[1] - middle, self.shift[0] + middle
        affine[self.across, 3] = first
        return affine

    def _layers(self, positions: tuple[float, ...], shape: tuple[int, int]) -> list[Layer]:
        """Paint all tissues in the slices, bottom first."""
        raise NotImplementedError

    def _painted(self, *place: Any) -> list[Layer]:
        """Return `_layers`, which are kept for the next contrast."""
        if self._cached[0] != place:
            self._cached = (place, self._layers(*place))
        return self._cached[1]

    def _plane(self, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Compute in-plane world coordinates, upwards and rightwards, each ``(y, x)``, mm.

        The pixel ``n // 2`` lies at ``shift``; the upward coordinate decreases along y.
        """
        rows, columns = (torch.arange(n) - n // 2 for n in shape)
        up = (self.shift[0] - rows * self.pixel)[:, None].expand(shape)
        right = (self.shift[1] + columns * self.pixel)[None, :].expand(shape)
        return up, right

    def _grain(
        self, acquisition: str, positions: tuple[float, ...], shape: tuple[int, int]
    ) -> Tensor:
        """Draw fine structure ``(slice, y, x)`` of unit standard deviation.

        One half is common to all contrasts, the other is drawn for this one. The power falls as
        ``f^-2`` down to a wavelength of two pixels, as that of tissue in real images. Texture of a
        single wavelength would be sparser than real images (experiments/anatomy_texture).
        """
        contrast = 1 + sorted(self.sequences).index(acquisition)
        # drawn on the same square for all shapes, so that a larger view has the same centre
        square = (max(2 * self.size, *shape),) * 2
        fy, fx = torch.fft.fftfreq(square[0])[:, None], torch.fft.rfftfreq(square[1])[None, :]
        frequency = torch.hypot(fy, fx).clamp_min(_LOWEST * self.pixel)
        slices = []
        for position in positions:
            noise = sum(
                torch.randn(
                    square, generator=child(self.seed, _GRAIN, round(position * 1e6), stream)
                )
                for stream in (0, contrast)
            )
            slices.append(torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=square))
        grain = torch.stack(slices)
        return center_crop(grain / grain.std((1, 2), keepdim=True), shape)

    def _detail(
        self, positions: tuple[float, ...], shape: tuple[int, int], *wavelength: float
    ) -> Tensor:
        """Draw texture ``(slice, y, x)`` of unit standard deviation, the same in every contrast.

        ``wavelength`` is the distance between random control points in mm; two values are those
        along y and x.
        """
        lengths = (wavelength[0] / self.pixel, wavelength[-1] / self.pixel)
        control = [max(2, round(n / w) + 1) for n, w in zip(shape, lengths, strict=True)]
        # equal wavelengths at one position give equal textures
        key = [round(w * 10) for w in wavelength]
        slices = []
        for position in positions:
            generator = child(self.seed, self.stream, round(position * 1e6), *key)
            noise = torch.randn(1, 1, *control, generator=generator)
            fine = interpolate(noise, size=shape, mode="bicubic", align_corners=True)[0, 0]
            slices.append(fine / fine.std().clamp_min(1e-6))
        return torch.stack(slices)
