"""Export as DICOM: a folder for each scan, whose slices are derived MR images of one series."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import mrisem
from mrisem.errors import InputError
from mrisem.files import whole
from mrisem.results.export.placed import PlacedImages

_MAX_STORED = 2**16 - 1  # largest value of a stored pixel
_SQUARE = 1e-3  # largest cosine between rows and columns that counts as a right angle
_WINDOW = 99.8  # percentile of the series at the upper end of the grey window
_IMAGE_NAME = re.compile(r"\d{4,}\.dcm")  # name of an exported image


@dataclass
class Identifiers:
    """New identifiers for the series of one command.

    Scans of a subject share a study, and reconstructions of a file share a frame of reference, so
    that a viewer shows several methods beside each other.
    """

    studies: dict[str, str] = field(default_factory=dict)
    frames: dict[str, str] = field(default_factory=dict)
    n_series: dict[str, int] = field(default_factory=dict)

    def of(self, subject: str, file: str) -> dict[str, Any]:
        """Return the identifiers of a new series."""
        from pydicom.uid import generate_uid

        number = self.n_series[subject] = self.n_series.get(subject, 0) + 1
        return {
            "StudyInstanceUID": self.studies.setdefault(subject, generate_uid()),
            "FrameOfReferenceUID": self.frames.setdefault(file, generate_uid()),
            "SeriesInstanceUID": generate_uid(),
            "SeriesNumber": number,
        }


def write(scan: PlacedImages, folder: Path, identifiers: dict[str, Any]) -> None:
    """Write ``0001.dcm`` and so on, with the numbers of the input's slices counted from 1.

    Stored pixels have 16 bits, and ``RescaleSlope`` is the same in the whole series. Its rounding
    error is at most 1 / 131070 of the range from the smallest value (or 0) to the largest.

    Args:
        scan: slices with their geometry.
        folder: folder of the series; images of an earlier export there are replaced.
        identifiers: identifiers of the series (`Identifiers.of`).

    Raises:
        InputError: when rows and columns are not perpendicular, or the folder holds other files.
    """
    # DICOM states directions of rows and columns, and assumes a right angle
    if abs(float(np.dot(*scan.directions[:2]))) > _SQUARE:
        raise InputError(
            "rows and columns of a DICOM image must be perpendicular, got a sheared affine for "
            f"{folder.name}; set format=nifti"
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for number, dataset in _datasets(scan, identifiers):
            with whole(partial / f"{number + 1:04d}.dcm") as path:
                dataset.save_as(path, enforce_file_format=True)
        _remove_former(folder)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_former(folder: Path) -> None:
    """Remove the folder of an earlier export; raise InputError if it holds other files."""
    if not folder.exists():
        return
    others = [path.name for path in folder.iterdir() if not _IMAGE_NAME.fullmatch(path.name)]
    if others:
        raise InputError(
            f"a series needs a folder without other files, got {others[0]} in {folder}; move it "
            "away"
        )
    shutil.rmtree(folder)


def _datasets(scan: PlacedImages, identifiers: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """Yield number and content of each image; all share their scale."""
    low = min(0.0, float(scan.images.min()))
    slope = (float(scan.images.max()) - low) / _MAX_STORED or 1.0
    # Readers get the slope as a decimal string of 16 characters: pixels are divided by the same
    # rounded number, a little enlarged so that the largest value fits.
    slope, intercept = float(_decimal(slope * (1 + 1e-9))), float(_decimal(low))
    for image, number in zip(scan.images, scan.numbers, strict=True):
        dataset = _common(scan, identifiers)
        _set_geometry(dataset, scan, number)
        pixels = np.rint((image.astype(np.float64) - intercept) / slope).clip(0, _MAX_STORED)
        dataset.RescaleSlope, dataset.RescaleIntercept = _decimal(slope), _decimal(intercept)
        dataset.RescaleType = "US"
        dataset.PixelData = pixels.astype("<u2").tobytes()
        yield number, dataset


def _common(scan: PlacedImages, identifiers: dict[str, Any]) -> Any:
    """Return the content that all images of a series share (DICOM PS3.3, A.4: MR Image)."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for name in _EMPTY:
        setattr(dataset, name, None)  # present, without a value
    _, rows, columns = scan.images.shape
    center, width = _window(scan.images)
    series = f"{scan.acquisition} {scan.method}"[:64]
    facts = identifiers | _FIXED | {"Rows": rows, "Columns": columns, "SeriesDescription": series}
    facts |= {"ProtocolName": scan.acquisition[:64], "DerivationDescription": scan.description}
    facts |= {"WindowCenter": _decimal(center), "WindowWidth": _decimal(width)}
    if not scan.placed:
        facts["ImageComments"] = "position and orientation are not known"
    for name, value in facts.items():
        setattr(dataset, name, value)
    return dataset


# Required attributes that may be empty: patient and further acquisition parameters are not known.
_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
    *("PatientPosition", "Laterality", "PositionReferenceIndicator"),
    *("SliceThickness", "ScanOptions", "RepetitionTime", "EchoTime", "EchoTrainLength"),
)
_FIXED: dict[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "written without any data of the patient",
    "Modality": "MR",
    "Manufacturer": "mrisem",
    "SoftwareVersions": mrisem.__version__,
    "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
    "ScanningSequence": "RM",  # research mode, since the sequence is not known
    "SequenceVariant": "NONE",
    "MRAcquisitionType": "2D",
    "BurnedInAnnotation": "NO",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 0,
}


def _set_geometry(dataset: Any, scan: PlacedImages, number: int) -> None:
    """Set position, orientation and spacing of an image (PS3.3, C.7.6.2)."""
    columns, rows, across = scan.voxel_mm
    dataset.InstanceNumber = number + 1
    dataset.PixelSpacing = [_decimal(rows), _decimal(columns)]
    dataset.SpacingBetweenSlices = _decimal(across)
    dataset.ImageOrientationPatient = [_decimal(value) for value in scan.directions[:2].flat]
    dataset.ImagePositionPatient = [_decimal(value) for value in scan.point(0, 0, number)]


def _window(images: np.ndarray) -> tuple[float, float]:
    """Return centre and width of the grey window, from 0 to nearly the largest value."""
    high = float(np.percentile(images, _WINDOW)) or float(images.max()) or 1.0
    return high / 2, high


def _decimal(value: float) -> Any:
    """Return a number as DICOM's decimal string of at most 16 characters."""
    from pydicom.valuerep import DSfloat

    return DSfloat(float(value), auto_format=True)
