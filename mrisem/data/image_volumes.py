"""Images as subjects of the bank: their slices count as single-coil scans without phase."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mrisem.data.cuts import Cut, Plane, choose_plane, choose_slices, cut_slice
from mrisem.data.images import Image, load
from mrisem.data.volumes import VolumeInfo
from mrisem.errors import InputError
from mrisem.physics.fourier import fft2c


@dataclass(frozen=True)
class ImageVolume(VolumeInfo):
    """Slices of one image in the auxiliary set.

    Args:
        image: the image.
        plane: orientation of its slices.
        indices: indices of the slices in the image.
    """

    image: Image = field(kw_only=True)
    plane: Plane = field(kw_only=True)
    indices: tuple[int, ...] = field(kw_only=True)

    @property
    def file(self) -> str:
        """Unique label of the image, without its folder."""
        return self.image.label

    @property
    def middle(self) -> str:
        """Hash of the image's bytes, with the plane and indices of its slices."""
        # part of the key of a cached bank: another cut is another bank
        return f"{self.image.digest} {self.plane} {self.indices}"


def image_volume(image: Image, acquisition: str, cut: Cut) -> ImageVolume:
    """Read an image and choose its slices.

    Args:
        image: the image.
        acquisition: fastMRI's name of the sequence as which the image counts.
        cut: choice of the slices.

    Raises:
        InputError: when the image is bad.
    """
    voxels = load(image)
    indices = tuple(choose_slices(voxels, cut, str(image.paths[0])))
    # shape, padding and crop are those of a square single-coil scan without oversampling
    return ImageVolume(
        path=image.paths[0],
        acquisition=acquisition,
        subject=image.subject,
        shape=(len(indices), 1, cut.size, cut.size),
        padding=(0, cut.size),
        crop=(cut.size, cut.size),
        image=image,
        plane=choose_plane(voxels, cut),
        indices=indices,
    )


def image_volumes(
    images: list[Image], acquisition: str, cut: Cut, on_error: str
) -> list[ImageVolume]:
    """Choose the slices of images; with ``on_error=skip`` bad ones are left out with a warning."""
    volumes = []
    for image in images:
        try:
            volumes.append(image_volume(image, acquisition, cut))
        except InputError as error:
            if on_error == "raise":
                raise
            warnings.warn(f"left out of the auxiliary set: {error}", stacklevel=2)
    if not volumes:
        raise InputError(
            f"the auxiliary set must hold a good image, got {len(images)} bad ones; set "
            "auxiliary.root to other images"
        )
    return volumes


def read_image_slice(volume: ImageVolume, index: int) -> tuple[Tensor, np.ndarray, Tensor]:
    """Compute the k-space of a slice (compare `mrisem.data.slices.read_slice`).

    Returns:
        k-space ``(1, y, x)`` complex64 of the magnitudes, mask ``(x,)`` bool that samples all
        columns, and magnitudes ``(y, x)`` float32.
    """
    size = volume.crop[0]
    pixels, _ = cut_slice(load(volume.image), volume.plane, volume.indices[index], size)
    target = torch.from_numpy(pixels)
    return fft2c(target.to(torch.complex64))[None], np.ones(size, dtype=bool), target
