"""What every simulated subject does: paint its tissues once, and give images of any contrast."""

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
_LOWEST = 1 / 25  # cycles per mm below which fine structure has no more power; coil shading does


class SimulatedSubject:
    """One simulated subject; equal seeds give equal subjects.

    Args:
        seed: decides everything about the subject.
        size: pixels along the edge of the square field of view.
    """

    field_of_view: ClassVar[float]  # edge of the square, mm
    sequences: ClassVar[dict[str, PulseSequence]]
    brightest: ClassVar[tuple[str, str]]  # tissues of which one has signal 1
    stream: ClassVar[int]  # number of the texture's random stream
    in_air: ClassVar[bool]  # whether nothing reaches beyond the square
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
        """Clean magnitude images; asking for several contrasts of the same positions is cheap.

        Args:
            acquisition: fastMRI's name, one of the class's ``acquisitions``.
            positions: slice positions in [-1, 1].
            shape: ``(y, x)`` of a larger field of view around the same centre; default
                ``(size, size)``.

        Returns:
            ``(slice, y, x)`` float32, brightest tissue about 1.

        Raises:
            InputError: for an unknown acquisition.
        """
        if acquisition not in self.sequences:
            raise InputError(
                f"acquisition must be one of {sorted(self.sequences)}, got {acquisition!r}"
            )
        square = (self.size, self.size)
        shape = shape or square
        sequence = self.sequences[acquisition]
        painted = square if self.in_air else shape
        positions = tuple(positions)
        grain = self._grain(acquisition, positions, painted)
        image = compose(self._painted(positions, painted), self.tissues, sequence, grain)
        image = image / max(sequence.signal(self.tissues[name]) for name in self.brightest)
        margins: list[int] = []  # of air, so that the pixels n // 2 coincide
        for old, new in zip(image.shape[:0:-1], shape[::-1], strict=True):
            before = new // 2 - old // 2
            margins += [before, new - old - before]
        return pad(image, margins)

    def lesion_labels(self, positions: Iterable[float]) -> Tensor:
        """``(slice, size, size)`` uint8: 0, or 1 + the place in ``lesions`` of a pixel's lesion."""
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
        """Everything in the slices, bottom first."""
        raise NotImplementedError

    def _painted(self, *place: Any) -> list[Layer]:
        """As `_layers`, kept for the next contrast."""
        if self._cached[0] != place:
            self._cached = (place, self._layers(*place))
        return self._cached[1]

    def _plane(self, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """In-plane world coordinates (upwards, rightwards), each ``(y, x)``, mm.

        The pixel ``n // 2`` lies at ``shift``; up decreases along y.
        """
        rows, columns = (torch.arange(n) - n // 2 for n in shape)
        up = (self.shift[0] - rows * self.pixel)[:, None].expand(shape)
        right = (self.shift[1] + columns * self.pixel)[None, :].expand(shape)
        return up, right

    def _grain(
        self, acquisition: str, positions: tuple[float, ...], shape: tuple[int, int]
    ) -> Tensor:
        """Fine structure ``(slice, y, x)`` of unit deviation, in part of this contrast alone.

        Its power falls as ``f^-2``, as that of tissue in real images does, down to a wavelength of
        two pixels; tissues of one wavelength would be sparse as no real ones are
        (experiments/anatomy_texture).
        """
        contrast = 1 + sorted(self.sequences).index(acquisition)
        # drawn on one square whatever is seen of it, so that a larger view keeps its centre
        square = (max(2 * self.size, *shape),) * 2
        fy, fx = torch.fft.fftfreq(square[0])[:, None], torch.fft.rfftfreq(square[1])[None, :]
        frequency = torch.hypot(fy, fx).clamp_min(_LOWEST * self.pixel)
        slices = []
        for position in positions:
            noise = sum(
                torch.randn(square, generator=child(self.seed, _GRAIN, round(position * 1e6), part))
                for part in (0, contrast)
            )
            slices.append(torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=square))
        grain = torch.stack(slices)
        return center_crop(grain / grain.std((1, 2), keepdim=True), shape)

    def _detail(
        self, positions: tuple[float, ...], shape: tuple[int, int], *wavelength: float
    ) -> Tensor:
        """Texture ``(slice, y, x)`` of about unit deviation, the same in every contrast.

        ``wavelength`` is the distance between random control points, mm; along y and x if two.
        """
        lengths = (wavelength[0] / self.pixel, wavelength[-1] / self.pixel)
        control = [max(2, round(n / w) + 1) for n, w in zip(shape, lengths, strict=True)]
        key = [round(w * 10) for w in wavelength]
        slices = []
        for position in positions:
            generator = child(self.seed, self.stream, round(position * 1e6), *key)
            noise = torch.randn(1, 1, *control, generator=generator)
            fine = interpolate(noise, size=shape, mode="bicubic", align_corners=True)[0, 0]
            slices.append(fine / fine.std().clamp_min(1e-6))
        return torch.stack(slices)
