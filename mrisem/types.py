"""What the floors hand to each other, and the axis legend.

Axis legend (every tensor in mrisem follows it):

* k-space, coil images, sensitivity maps: ``(batch, coil, y, x)`` complex64. ``x`` is the
  phase-encode axis, ``y`` the readout, as fastMRI stores them; of an oversampled readout a batch
  keeps the rows that targets have (``data.readout``).
* masks: ``(batch, y, x)`` bool, True where sampled.
* images: ``(batch, y, x)`` complex64; magnitudes and targets: ``(batch, y, x)`` float32.
* embeddings: ``(n, token, feature)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SliceInfo:
    """Where a slice of a batch comes from.

    Args:
        file: name of the input file, such as ``file_brain_AXT2_0001.h5``.
        slice: index of the slice in that file.
        n_slices: number of slices of that file that are processed in this run.
        acquisition: fastMRI's name of the sequence, such as ``AXT2``.
        subject: the file's ``patient_id``.
        acceleration: acquired over sampled phase-encode lines, the factor really reached.
    """

    file: str
    slice: int
    n_slices: int
    acquisition: str
    subject: str
    acceleration: float


@dataclass(frozen=True)
class FailedScan:
    """Slices that could not be read.

    Args:
        file: name of the input file.
        message: what is wrong, one line.
        slices: which slices of the file; empty: the whole file.
    """

    file: str
    message: str
    slices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Undersampled slices of equal shape, scaled so that each zero-filled magnitude has maximum 1.

    Args:
        masked_kspace: ``(batch, coil, y, x)`` complex64, zero where not sampled.
        mask: ``(batch, y, x)`` bool.
        sensitivity_maps: ``(batch, coil, y, x)`` complex64, unit RSS inside the support.
        scale: ``(batch,)`` float32; an image times it is in the units of the file.
        crop: ``(Y, X)``, the size of targets and written reconstructions (header's reconSpace).
        info: one entry a slice.
        target: ``(batch, Y, X)`` float32 in the units of the file, or None when the file has none.
        failed: slices of this group that could not be read, and are not in the batch.
        coarse_maps: ``(batch, coil, g, g)`` complex64, the maps on the grid that ESPIRiT computed
            them on (`mrisem.physics.coils.interpolate_maps` brings them to full size); None: not
            known.
        readout: rows of the field of view that the coarse maps cover, of which k-space has the
            central ``y``; None: these rows.

    Attributes:
        measurements: those made of it so far (`mrisem.physics.sense.Measurement.of`).
    """

    masked_kspace: Tensor
    mask: Tensor
    sensitivity_maps: Tensor
    scale: Tensor
    crop: tuple[int, int]
    info: tuple[SliceInfo, ...]
    target: Tensor | None = None
    failed: tuple[FailedScan, ...] = ()
    coarse_maps: Tensor | None = None
    readout: int | None = None
    measurements: dict[int, Any] = field(
        init=False, default_factory=dict, repr=False, compare=False
    )

    def __len__(self) -> int:
        return self.masked_kspace.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors on ``device``."""
        return replace(
            self,
            masked_kspace=self.masked_kspace.to(device),
            mask=self.mask.to(device),
            sensitivity_maps=self.sensitivity_maps.to(device),
            scale=self.scale.to(device),
            target=None if self.target is None else self.target.to(device),
            coarse_maps=None if self.coarse_maps is None else self.coarse_maps.to(device),
        )

    def select(self, index: int | slice) -> Batch:
        """Return slice ``index`` as a batch of one, or a range of slices."""
        one = slice(index, index + 1) if isinstance(index, int) else index
        return replace(
            self,
            masked_kspace=self.masked_kspace[one],
            mask=self.mask[one],
            sensitivity_maps=self.sensitivity_maps[one],
            scale=self.scale[one],
            info=self.info[one],
            target=None if self.target is None else self.target[one],
            coarse_maps=None if self.coarse_maps is None else self.coarse_maps[one],
        )


@dataclass(frozen=True)
class Reconstruction:
    """What every method returns.

    Args:
        image: ``(batch, y, x)`` complex64 at the k-space matrix size, in the batch's scale.
        iterates: images on the way there, oldest first; may be empty. With stages ``k = 1, ..., K``
            they begin with the zero-filled image and every stage's image ``x_k``.
        network_outputs: output ``z_k`` of every stage's network before its data consistency, oldest
            first; empty for a network without stages.
    """

    image: Tensor
    iterates: tuple[Tensor, ...] = ()
    network_outputs: tuple[Tensor, ...] = ()
