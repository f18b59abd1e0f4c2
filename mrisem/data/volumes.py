"""What is in a folder of fastMRI files, without reading their k-space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError

import h5py
import numpy as np

from mrisem.errors import InputError

UNNAMED = "unnamed"
"""Acquisition of a file that does not name one."""


@dataclass(frozen=True)
class VolumeInfo:
    """Facts about one file.

    Args:
        path: of the HDF5 file.
        acquisition: fastMRI's name of the sequence, or `UNNAMED`.
        subject: the ``patient_id`` attribute, the file's stem where there is none.
        shape: ``(slice, coil, y, x)`` of its k-space.
        padding: first acquired phase-encode column and the one after the last.
        crop: ``(Y, X)`` of targets and reconstructions: the target's size, else the header's
            reconSpace.
    """

    path: Path
    acquisition: str
    subject: str
    shape: tuple[int, int, int, int]
    padding: tuple[int, int]
    crop: tuple[int, int]

    @property
    def file(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def n_slices(self) -> int:
        """Number of slices in the file."""
        return self.shape[0]


@dataclass(frozen=True)
class FailedScan:
    """A scan that could not be read, with ``on_error=skip``: its name, what is wrong."""

    file: str
    message: str


def inspect_volume(path: Path) -> VolumeInfo:
    """Read the facts about one file.

    Raises:
        InputError: when it is no HDF5 file, is cut short, or is not multi-coil k-space.
    """
    from mrisem.data.reader import VolumeReader

    try:
        with h5py.File(path, "r") as file:
            shape = _kspace_shape(file, path)
            target = file["reconstruction_rss"].shape if "reconstruction_rss" in file else None
        metadata = VolumeReader(path).metadata
    except (OSError, KeyError) as error:
        raise InputError(
            f"{path} must be a complete HDF5 file, but cannot be read ({one_line(error)}); "
            "copy it again"
        ) from error
    except (ParseError, RuntimeError) as error:
        raise InputError(
            f"ismrmrd_header of {path} must hold the encoded and reconstructed matrix sizes and "
            f"the encoding limits, got: {one_line(error)}; remove it to have them derived"
        ) from error
    left, right = max(0, metadata["padding_left"]), min(shape[3], metadata["padding_right"])
    return VolumeInfo(
        path=path,
        acquisition=_text(metadata.get("acquisition", UNNAMED)),
        subject=_text(metadata.get("patient_id", path.stem)),
        shape=shape,
        padding=(left, right) if left < right else (0, shape[3]),
        crop=_crop(path, shape, target, metadata["recon_size"][:2]),
    )


def _kspace_shape(file: h5py.File, path: Path) -> tuple[int, int, int, int]:
    """Shape of the k-space dataset, which is checked."""
    if not isinstance(file.get("kspace"), h5py.Dataset):
        raise InputError(f"{path} must hold a dataset 'kspace', got {sorted(file)}")
    kspace = file["kspace"]
    if kspace.ndim != 4 or 0 in kspace.shape:
        raise InputError(
            f"kspace must be (slice, coil, y, x), got {kspace.shape} in {path}; single-coil files "
            "need a coil axis of length 1"
        )
    if not np.issubdtype(kspace.dtype, np.complexfloating):
        raise InputError(
            f"kspace must be complex64, got {kspace.dtype} in {path}; join real and imaginary parts"
        )
    return kspace.shape


def _crop(
    path: Path,
    shape: tuple[int, int, int, int],
    target: tuple[int, ...] | None,
    recon_size: tuple[int, int],
) -> tuple[int, int]:
    """Size of targets; a reconSpace wider than k-space is cut to a square, as fastMRI does."""
    if target is None:
        height, width = recon_size
        return (shape[3], shape[3]) if width > shape[3] else (min(height, shape[2]), width)
    fits = len(target) == 3 and target[1] <= shape[2] and target[2] <= shape[3]
    if not fits or target[0] != shape[0]:
        raise InputError(
            f"reconstruction_rss must be (slice, Y, X) within kspace {shape}, got {target} in "
            f"{path}; rewrite or remove it"
        )
    return target[1], target[2]


def _text(value: object) -> str:
    """An HDF5 attribute as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def occupied_columns(kspace: np.ndarray) -> np.ndarray:
    """Whether each column of ``(coil, y, x)`` k-space holds anything but zeros, ``(x,)`` bool."""
    return (kspace != 0).any(axis=(0, 1))


def one_line(error: Exception) -> str:
    """Message of an error of another library, without line breaks."""
    return " ".join(str(error).split())


def target_name(file: h5py.File) -> str | None:
    """Return the dataset of a file's targets; None where it has none."""
    names = ("reconstruction_rss", "reconstruction_esc")
    return next((name for name in names if name in file), None)
