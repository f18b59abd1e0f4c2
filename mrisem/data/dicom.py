"""Reading of DICOM series: magnitude images with one slice in each file."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrisem.errors import InputError
from mrisem.files import reading

_FIX = "copy it again, decompress it, or move it out of the folder"
_ENDINGS = (".dcm", ".dicom", ".ima")
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_UNEVEN = 0.1  # largest deviation of a distance of slices, as a share of the median
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Tags whose values the files of one image share. A series may hold several echoes of its slices.
_SERIES = ("SeriesInstanceUID", "EchoNumbers", "EchoTime")
_KEY = ("PatientID", "StudyInstanceUID", "SeriesNumber", *_SERIES)


@dataclass(frozen=True)
class Slice:
    """One slice with its geometry.

    Args:
        position: position of the first pixel, mm to the left, back and head.
        orientation: unit vectors along a row, and along a column, in the same axes.
        spacing: distance of rows, and of columns, mm.
        distance: distance of slices that the file states, mm.
        pixels: ``(row, column)`` float32, with the file's rescaling.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    distance: float
    pixels: np.ndarray


def is_dicom(path: Path) -> bool:
    """Return whether a file has the name or the first bytes of a DICOM image."""
    if path.name.upper() == "DICOMDIR":  # a list of files
        return False
    if path.suffix.lower() in _ENDINGS:
        return True
    with reading(path, "a file that may be read", _FIX), path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"  # behind a preamble of 128 bytes


def series_of(path: Path) -> tuple[str, ...] | None:
    """Return the values that a file shares with the others of its series; None: it has no image.

    Raises:
        InputError: when the file cannot be read.
    """
    import pydicom

    with _quietly(path):
        tags = [*_KEY, "Rows", "SOPClassUID"]
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        if "Rows" not in header:  # a report, a presentation state
            return None
        return tuple(str(header.get(name, "") or "") for name in _KEY)


def facts(key: Sequence[str], paths: Sequence[Path]) -> tuple[str, str, str]:
    """Return label, subject and digest of a series, see `mrisem.data.images.Image`.

    Neither the order of the files nor their names count. The subject is a hash of the patient's
    identifier; without one, of the study.

    Args:
        key: result of `series_of`.
        paths: files of the series.
    """
    patient, study, number, _, echo, _ = key
    hashes = []
    for path in paths:
        with path.open("rb") as stream:
            hashes.append(hashlib.file_digest(stream, "sha256").hexdigest())
    digest = hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()
    person = hashlib.sha256((patient or study or digest).encode()).hexdigest()[:12]
    label = f"series{number}" + (f"_echo{echo}" if echo else "")
    return label, f"patient-{person}", digest


def read(paths: tuple[Path, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Read voxels ``(row, column, slice)`` float32 and their affine (RAS+, mm).

    Source: DICOM PS3.3, section C.7.6.2.1.1.

    Raises:
        InputError: when a file is damaged, or the files are no single volume of magnitude images.
    """
    slices = [_read_file(path) for path in paths]
    first = slices[0]
    for path, part in zip(paths, slices, strict=True):
        _check_same("size", part.pixels.shape, first.pixels.shape, path)
        _check_same("PixelSpacing", part.spacing, first.spacing, path)
        _check_same("ImageOrientationPatient", part.orientation, first.orientation, path)
    along_row, along_column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(along_row, along_column)
    # numbers and names of files are no order in space: sort by position along the normal
    heights = np.array([float(np.dot(normal, part.position)) for part in slices])
    order = np.argsort(heights)
    affine = np.eye(4)
    # the first index of a voxel is the row, which follows others along a column
    affine[:3, 0] = along_column * first.spacing[0]
    affine[:3, 1] = along_row * first.spacing[1]
    affine[:3, 2] = normal * _distance(heights[order], first.distance, paths[0])
    affine[:3, 3] = slices[order[0]].position
    voxels = np.stack([slices[index].pixels for index in order], axis=-1)
    return voxels, _LPS_TO_RAS @ affine


def _read_file(path: Path) -> Slice:
    """Read one file and parse all values that are used, so that errors name the file."""
    import pydicom
    from pydicom.pixels import apply_modality_lut

    with _quietly(path):
        header = pydicom.dcmread(path)
        n_channels = int(header.get("SamplesPerPixel") or 1)
        n_frames = int(header.get("NumberOfFrames") or 1)
        photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
        if n_channels != 1 or n_frames != 1 or photometric != "MONOCHROME2":
            raise InputError(
                f"a DICOM file must hold one grey image (MONOCHROME2), got {n_frames} of "
                f"{photometric} in {path}; convert it to NIfTI, or move it out of the folder"
            )
        if missing := [name for name in _GEOMETRY if not header.get(name)]:
            raise InputError(f"a DICOM image must state {missing[0]}, got none in {path}; {_FIX}")
        _check_decoder(header, path)
        geometry = [tuple(float(n) for n in header[name].value) for name in _GEOMETRY]
        if [len(numbers) for numbers in geometry] != [3, 6, 2]:
            raise ValueError(f"{', '.join(_GEOMETRY)} must have 3, 6 and 2 numbers")
        # needed for a series of a single slice only, see `_distance`
        distance = header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1
        pixels = apply_modality_lut(header.pixel_array, header).astype(np.float32)
        position, orientation, spacing = geometry
        return Slice(position, orientation, spacing, float(distance), pixels)


def _check_decoder(header: Any, path: Path) -> None:
    """Refuse compressed pixels that no installed package decodes."""
    from pydicom.pixels import get_decoder

    syntax = header.file_meta.get("TransferSyntaxUID") if "file_meta" in vars(header) else None
    if syntax is None or not syntax.is_compressed:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise InputError(
            f"compressed DICOM needs an installed decoder, got {syntax.name} without one in "
            f"{path}; pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or decompress it "
            "(gdcmconv --raw)"
        )


def _check_same(name: str, value: tuple[float, ...], first: tuple[float, ...], path: Path) -> None:
    """Raise InputError if a file differs from the first file of its series."""
    if len(value) != len(first) or not np.allclose(value, first, rtol=1e-3, atol=1e-3):
        raise InputError(
            f"the files of a DICOM series must share their {name}, got {value} in {path}, {first} "
            "in another; move those of another kind (localizers) out of the folder"
        )


def _distance(heights: np.ndarray, stated: float, path: Path) -> float:
    """Return the distance of neighbouring slices, mm; for a single slice the stated one.

    Args:
        heights: positions of the slices along their normal, ascending, mm.
        stated: distance that the files state, mm.
        path: a file of the series, for messages.

    Raises:
        InputError: when slices lie at the same position, or one is missing.
    """
    if len(heights) == 1:
        return stated
    steps = np.diff(heights)
    median = float(np.median(steps))
    if steps.min() < 1e-3:
        raise InputError(
            "a DICOM series must have one image at each position, got several (time points, or "
            f"other contrasts) in that of {path}; move the others out of the folder"
        )
    if np.abs(steps - median).max() > _UNEVEN * median:
        raise InputError(
            f"slices of a DICOM series must lie evenly, got distances of {steps.min():.2f} to "
            f"{steps.max():.2f} mm in that of {path}; add the files that are missing"
        )
    return median


@contextmanager
def _quietly(path: Path) -> Iterator[None]:
    """Read a DICOM file without warnings of its standard; an error is one InputError."""
    log = logging.getLogger("pydicom")  # logs a traceback of each error that it raises
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with reading(path, "a DICOM image", _FIX), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
