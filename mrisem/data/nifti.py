"""Reading of NIfTI files: ``.nii`` and ``.nii.gz``."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from pathlib import Path

import numpy as np

from mrisem.errors import InputError
from mrisem.files import reading

# A header of a few bytes can declare more voxels than a machine has memory: 1024**3 / 2.
MAX_VOXELS = 2**29
_BIDS_SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)_")


def is_nifti(path: Path) -> bool:
    """Return whether a file has the name of a NIfTI file.

    >>> is_nifti(Path("a.nii.gz")), is_nifti(Path("a.NII")), is_nifti(Path("a.gz"))
    (True, True, False)
    """
    return path.name.lower().endswith((".nii", ".nii.gz"))


def facts(path: Path) -> tuple[str, str, str]:
    """Return label, subject and digest of a file, see `mrisem.data.images.Image`."""
    with reading(path, "a complete NIfTI file", "copy it again"), path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    label = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    # Outside BIDS a name tells no subject: the content does, so that a copy is the same subject.
    bids = _BIDS_SUBJECT.match(path.name)
    return label, bids[1] if bids else f"image-{digest[:12]}", digest


def read(paths: tuple[Path, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Read voxels ``(i, j, k)`` float32, with the header's scaling, and their affine (RAS+, mm).

    Raises:
        InputError: when the file is damaged, or holds no single volume.
    """
    import nibabel

    (path,) = paths
    with reading(path, "a complete NIfTI file", "write or copy it again"):
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image) or image.affine is None:
            raise ValueError("it is of another format")
        _check(image.shape, image.get_data_dtype(), path)
        values = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
    if not (image.header["qform_code"] or image.header["sform_code"]):
        warnings.warn(
            f"{path} states no orientation (qform and sform codes are 0): its axes are assumed to "
            "run to the left, front and head; check its slices",
            stacklevel=2,
        )
    return values, image.affine


def _check(shape: tuple[int, ...], dtype: np.dtype, path: Path) -> None:
    """Raise InputError unless the header declares one volume of real numbers."""
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise InputError(
            f"a NIfTI image must hold one real number for each voxel, got {dtype} (colours or "
            f"complex numbers) in {path}; take the magnitude image"
        )
    if len(shape) < 3 or math.prod(shape[3:]) != 1 or 0 in shape:
        raise InputError(
            f"a NIfTI image must have three axes, got {shape} in {path}; write one file for each "
            "volume"
        )
    if math.prod(shape) > MAX_VOXELS:
        raise InputError(
            f"a NIfTI image may have at most {MAX_VOXELS} voxels, got {shape} in {path}; it is "
            "damaged, or must be resampled"
        )
