"""Search, naming and reading of magnitude images: NIfTI files and DICOM series.

Such images have neither phase nor coils. Scans are simulated from them, and banks are made of them.
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

# Interpolation and filters leave values below zero in magnitude images, down to this share of the
# maximum.
_NEGATIVE = 0.1
# Limits of plausible voxels: shortest edge in mm, and largest ratio of edges.
_SHORTEST, _LONGEST = 0.001, 50
# Characters that do not belong into the name of a file.
_UNSAFE = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True)
class Image:
    """One NIfTI file or DICOM series, whose voxels are not read yet.

    Args:
        paths: its file or files.
        label: unique name for people and for files; it ends in part of the digest.
        subject: name of the subject: for a DICOM series a hash of the patient, for a NIfTI file
            with a name as in BIDS (``sub-01_T1w.nii.gz``) its subject. Any other file is a subject
            of its own, named by its content.
        digest: SHA-256 of the bytes.
        read: function that returns voxels and affine of the files.
    """

    paths: tuple[Path, ...]
    label: str
    subject: str
    digest: str
    read: Callable[[tuple[Path, ...]], tuple[np.ndarray, np.ndarray]]

    @property
    def source(self) -> str:
        """Name of the file, or of the first file of a series with the number of others."""
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"{self.paths[0].name}{more}"


@dataclass(frozen=True)
class Voxels:
    """Voxels of an image in anatomical axes.

    Args:
        values: ``(x, y, z)`` float32, not negative. x runs to the patient's right, y to the front,
            z to the head; in an oblique image each is the nearest axis.
        spacing: distances of voxels along these axes, mm.
        affine: ``(4, 4)`` float64 that maps indices of ``values`` to mm (RAS+).
    """

    values: np.ndarray
    spacing: tuple[float, float, float]
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))


def find_images(root: Path, on_error: str = "raise") -> list[Image]:
    """Find the NIfTI files and DICOM series in a folder and its subfolders.

    Args:
        root: the folder, or a NIfTI or DICOM file.
        on_error: ``raise`` at a file that cannot be read, or ``skip`` it with a warning.

    Returns:
        images in the order of their paths, without exact copies.

    Raises:
        InputError: when there is no image, or a file cannot be read.
    """
    if not root.exists():
        raise InputError(
            f"images must lie in a folder, got {root}, which does not exist; correct the path"
        )
    files = _files(root)
    images = [Image((p,), *nifti.facts(p), nifti.read) for p in files if nifti.is_nifti(p)]
    for key, paths in _dicom_series(files, on_error).items():
        images.append(Image(tuple(paths), *dicom.facts(key, paths), dicom.read))
    if not images:
        raise InputError(
            f"{root} must hold images, .nii or .nii.gz files or DICOM series, got none; name the "
            "folder that holds them"
        )
    # of exact copies the first path stays, since later entries replace earlier ones
    distinct = {i.digest: i for i in sorted(images, key=lambda i: i.paths, reverse=True)}
    return sorted(
        (_labelled(image) for image in distinct.values()), key=lambda image: image.paths[0]
    )


def _dicom_series(files: list[Path], on_error: str) -> dict[tuple[str, ...], list[Path]]:
    """Group DICOM images by series (`dicom.series_of`)."""
    series: dict[tuple[str, ...], list[Path]] = {}
    for path in (path for path in files if dicom.is_dicom(path)):
        try:
            key = dicom.series_of(path)
        except InputError as error:
            if on_error == "raise":
                raise
            warnings.warn(f"left out: {error}", stacklevel=3)
            continue
        if key is not None:
            series.setdefault(key, []).append(path)
    return series


def images_of_root(root: Path, on_error: str = "raise") -> list[Image]:
    """Find the images of a folder; empty for a data set (with ``multicoil_train``)."""
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
        InputError: when the files hold no single volume, or values that are no magnitudes.
    """
    from nibabel.affines import voxel_sizes
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    path = image.paths[0]
    values, affine = image.read(image.paths)
    _check_values(values, affine, path)
    # row i of the orientation: anatomical axis and direction of the image's axis i
    orientation = io_orientation(affine)
    order = np.argsort(orientation[:, 0])
    spacing = voxel_sizes(affine)[order]
    if spacing.min() < _SHORTEST or spacing.max() > _LONGEST * spacing.min():
        edges = " x ".join(f"{mm:.3g}" for mm in spacing)
        raise InputError(
            f"voxels must have edges of {_SHORTEST} mm and more, the longest at most {_LONGEST} "
            f"times the shortest, got {edges} mm in {path}; correct its header"
        )
    turned = apply_orientation(values, orientation).clip(min=0)
    turned_affine = affine @ inv_ornt_aff(orientation, values.shape)
    sides = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    return Voxels(np.ascontiguousarray(turned), sides, turned_affine)


def _check_values(values: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Raise InputError unless values are finite magnitudes and the affine has a volume."""
    if not np.isfinite(values).all():
        raise InputError(f"an image must be finite, got NaN or infinity in {path}; leave it out")
    largest = float(values.max())
    if largest <= 0 or float(values.min()) < -_NEGATIVE * largest:
        raise InputError(
            f"a magnitude image must be positive, got {values.min():g} to {largest:g} in {path}; "
            "take the magnitude image, in its own scale"
        )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(
            "an image must state the position of its voxels, got an affine without volume in "
            f"{path}; write it again"
        )


def _files(root: Path) -> list[Path]:
    """Return the files in a folder and its subfolders, without hidden files and folders."""
    if root.is_file():
        return [root]
    shown = (p for p in root.rglob("*") if not any(s[0] == "." for s in p.relative_to(root).parts))
    return sorted(path for path in shown if path.is_file())


def _labelled(image: Image) -> Image:
    """Return the image with a label that suits a file's name and ends in part of its digest."""
    label = f"{_UNSAFE.sub('_', image.label)[:60]}-{image.digest[:8]}"
    return Image(image.paths, label, image.subject, image.digest, image.read)
