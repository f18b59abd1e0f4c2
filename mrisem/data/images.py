"""Magnitude images as hospitals hold them, NIfTI files and DICOM series: found, named, and read.

Phase and coils are gone from them. Scans are simulated from them, and banks are made of them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from mrisem.data import dicom, nifti
from mrisem.errors import InputError

# Of the maximum: what interpolation and filters leave below zero in a magnitude image.
_NEGATIVE = 0.1
# Edges of voxels that are taken for damage, not for an image: mm, and a ratio.
_SHORTEST, _LONGEST = 0.001, 50
_UNSAFE = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True)
class Image:
    """One NIfTI file or DICOM series that was found; its voxels are not read yet.

    Args:
        paths: its file or files.
        label: name for people and for files, with part of the digest: no two images share it.
        subject: the subject. A DICOM series has a hash of its patient; NIfTI files named as BIDS
            has it (``sub-01_T1w.nii.gz``) share their subject; any other file is its own, by
            content. Neither the place nor the name of a file matters otherwise.
        digest: SHA-256 of the bytes.
        read: returns voxels and affine.
    """

    paths: tuple[Path, ...]
    label: str
    subject: str
    digest: str
    read: Callable[[tuple[Path, ...]], tuple[np.ndarray, np.ndarray]]

    @property
    def source(self) -> str:
        """Name of the file, or of the series' first file with their number."""
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"{self.paths[0].name}{more}"


@dataclass(frozen=True)
class Voxels:
    """An image in anatomical axes.

    Args:
        values: ``(x, y, z)`` float32, not negative; x to the right, y to the front, z to the head
            of the patient, each by the nearest axis of the image.
        spacing: mm from voxel to voxel along each of them.
        affine: ``(4, 4)``, maps indices of ``values`` to mm (RAS+); oblique where the image is.
    """

    values: np.ndarray
    spacing: tuple[float, float, float]
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))


def find_images(root: Path, on_error: str = "raise") -> list[Image]:
    """Find the NIfTI files and DICOM series in a folder and all below it, or one file.

    Args:
        root: the folder, or a NIfTI or DICOM file.
        on_error: ``raise`` at a file that cannot be read, or ``skip`` it with a warning.

    Returns:
        images in the order of their paths; of files that are equal, byte for byte, the first.

    Raises:
        InputError: when there is none, or a file cannot be read.
    """
    if not root.exists():
        raise InputError(f"images must lie in a folder, {root} does not exist; correct the path")
    files = _files(root)
    found = [Image((p,), *nifti.facts(p), nifti.read) for p in files if nifti.is_nifti(p)]
    series: dict[tuple[str, ...], list[Path]] = {}
    for path in (p for p in files if dicom.is_dicom(p)):
        try:
            key = dicom.series_of(path)
        except InputError as error:
            if on_error == "raise":
                raise
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        if key is not None:
            series.setdefault(key, []).append(path)
    for key, paths in series.items():
        found.append(Image(tuple(paths), *dicom.facts(key, paths), dicom.read))
    if not found:
        raise InputError(
            f"{root} must hold images, .nii or .nii.gz files or DICOM series, it holds none; name "
            "their folder"
        )
    images = {image.digest: image for image in sorted(found, key=lambda i: i.paths, reverse=True)}
    return sorted((_labelled(image) for image in images.values()), key=lambda image: image.paths[0])


def images_of_root(root: Path, on_error: str = "raise") -> list[Image]:
    """Images of a folder; none where it is a data set, with ``multicoil_train``, or has none."""
    if not root.is_dir() or any(root.glob("*coil_train")):
        return []
    files = _files(root)
    if not any(nifti.is_nifti(p) or dicom.is_dicom(p) for p in files):
        return []
    return find_images(root, on_error)


@lru_cache(maxsize=1)  # slices of one image are read one after the other
def load(image: Image) -> Voxels:
    """Read an image and bring its axes into anatomical order.

    Raises:
        InputError: when it is no single image of a volume, or its values are no magnitudes.
    """
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    place = image.paths[0]
    values, affine = image.read(image.paths)
    if not np.isfinite(values).all():
        raise InputError(f"an image must be finite, got NaN or infinity in {place}; leave it out")
    largest = float(values.max())
    if largest <= 0 or float(values.min()) < -_NEGATIVE * largest:
        raise InputError(
            f"a magnitude image must be positive, got {values.min():g} to {largest:g} in {place}; "
            "take the magnitude image, in its own scale"
        )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(
            f"an image must state the place of its voxels, got an affine without volume in {place};"
            " write it again"
        )
    turn = io_orientation(affine)  # row i: anatomical axis and direction of the image's axis i
    order = np.argsort(turn[:, 0])
    spacing = voxel_sizes(affine)[order]
    if spacing.min() < _SHORTEST or spacing.max() > _LONGEST * spacing.min():
        edges = " x ".join(f"{mm:.3g}" for mm in spacing)
        raise InputError(
            f"voxels must have edges of {_SHORTEST} mm and more, the longest at most {_LONGEST} "
            f"times the shortest, got {edges} mm in {place}; correct its header"
        )
    turned = apply_orientation(values, turn).clip(min=0)
    place_of = affine @ inv_ornt_aff(turn, values.shape)
    sides = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    return Voxels(np.ascontiguousarray(turned), sides, place_of)


def _files(root: Path) -> list[Path]:
    """Files below a folder by path, without hidden ones and those in hidden folders."""
    if root.is_file():
        return [root]
    shown = (p for p in root.rglob("*") if not any(s[0] == "." for s in p.relative_to(root).parts))
    return sorted(path for path in shown if path.is_file())


def _labelled(image: Image) -> Image:
    """The image, its label fit for a file's name and with part of its digest."""
    label = f"{_UNSAFE.sub('_', image.label)[:60]}-{image.digest[:8]}"
    return Image(image.paths, label, image.subject, image.digest, image.read)
