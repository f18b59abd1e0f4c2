"""DICOM series of magnitude images, one slice a file."""

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
_UNEVEN = 0.1  # of the median distance of slices
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# What puts files into one series: a series may hold several echoes of the same slices.
_SERIES = ("SeriesInstanceUID", "EchoNumbers", "EchoTime")
_KEY = ("PatientID", "StudyInstanceUID", "SeriesNumber", *_SERIES)


@dataclass(frozen=True)
class Slice:
    """What one file says.

    Args:
        position: Place of the first pixel, in mm to the left, back and head.
        orientation: directions in which columns and rows follow each other, in the same axes.
        spacing: mm from row to row, and from column to column.
        distance: mm to the next slice, as the file states it.
        pixels: ``(row, column)`` float32, scaled as stated.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    distance: float
    pixels: np.ndarray


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, or is named as one; not a list of files."""
    if path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() in _ENDINGS:
        return True
    with reading(path, "a file that may be read", _FIX), path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def series_of(path: Path) -> tuple[str, ...] | None:
    """Return what a file shares with the others of its series; None where it holds no image.

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
    identifier, or where that was removed, of the study.
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
    """Read voxels ``(row, column, slice)`` float32, scaled as stated, and their affine (RAS+, mm).

    Source: DICOM PS3.3, section C.7.6.2.1.1; its axes run to the left, back and head.

    Raises:
        InputError: when a file is damaged, or the files are no single volume of magnitude images.
    """
    slices = [_read_file(path) for path in paths]
    first = slices[0]
    for path, one in zip(paths, slices, strict=True):
        _check_same("size", one.pixels.shape, first.pixels.shape, path)
        _check_same("PixelSpacing", one.spacing, first.spacing, path)
        _check_same("ImageOrientationPatient", one.orientation, first.orientation, path)
    along_row, along_column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(along_row, along_column)
    heights = np.array([float(np.dot(normal, one.position)) for one in slices])
    order = np.argsort(heights)
    affine = np.eye(4)
    affine[:3, 0] = along_column * first.spacing[0]
    affine[:3, 1] = along_row * first.spacing[1]
    affine[:3, 2] = normal * _distance(heights[order], first.distance, paths[0])
    affine[:3, 3] = slices[order[0]].position
    voxels = np.stack([slices[index].pixels for index in order], axis=-1)
    return voxels, _LPS_TO_RAS @ affine


def _read_file(path: Path) -> Slice:
    """Read one file; all its values are parsed here, where whatever fails is one line."""
    import pydicom
    from pydicom.pixels import apply_modality_lut

    with _quietly(path):
        header = pydicom.dcmread(path)
        colour = int(header.get("SamplesPerPixel") or 1)
        frames = int(header.get("NumberOfFrames") or 1)
        photometric = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
        if colour != 1 or frames != 1 or photometric != "MONOCHROME2":
            raise InputError(
                f"a DICOM file must hold one grey image (MONOCHROME2), got {frames} of "
                f"{photometric} in {path}; convert it to NIfTI, or move it out of the folder"
            )
        if missing := [name for name in _GEOMETRY if not header.get(name)]:
            raise InputError(f"a DICOM image must state {missing[0]}, got none in {path}; {_FIX}")
        _check_decoder(header, path)
        geometry = [tuple(float(n) for n in header[name].value) for name in _GEOMETRY]
        if [len(numbers) for numbers in geometry] != [3, 6, 2]:
            raise ValueError(f"{', '.join(_GEOMETRY)} must have 3, 6 and 2 numbers")
        stated = header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 1
        pixels = apply_modality_lut(header.pixel_array, header).astype(np.float32)
        position, orientation, spacing = geometry
        return Slice(position, orientation, spacing, float(stated), pixels)


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
            f"compressed DICOM needs a decoder, none is installed for {syntax.name} of {path}; "
            "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or decompress it "
            "(gdcmconv --raw)"
        )


def _check_same(name: str, value: tuple[float, ...], first: tuple[float, ...], path: Path) -> None:
    if len(value) != len(first) or not np.allclose(value, first, rtol=1e-3, atol=1e-3):
        raise InputError(
            f"the files of a DICOM series must share their {name}, got {value} in {path}, {first} "
            "in another; move those of another kind (localizers) out of the folder"
        )


def _distance(heights: np.ndarray, stated: float, path: Path) -> float:
    """Distance of neighbouring slices in mm; of a single slice what its file states.

    Raises:
        InputError: when slices lie at the same place, or one is missing.
    """
    if len(heights) == 1:
        return stated
    steps = np.diff(heights)
    median = float(np.median(steps))
    if steps.min() < 1e-3:
        raise InputError(
            f"a DICOM series must have one image at each place, got several (time points, or other "
            f"contrasts) in that of {path}; move the others out of the folder"
        )
    if np.abs(steps - median).max() > _UNEVEN * median:
        raise InputError(
            f"slices of a DICOM series must lie evenly, got distances of {steps.min():.2f} to "
            f"{steps.max():.2f} mm in that of {path}; add the files that are missing"
        )
    return median


@contextmanager
def _quietly(path: Path) -> Iterator[None]:
    """Read a DICOM file; values out of its standard are passed over, errors are one line."""
    log = logging.getLogger("pydicom")  # it logs tracebacks of what it raises as well
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with reading(path, "a DICOM image", _FIX), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
