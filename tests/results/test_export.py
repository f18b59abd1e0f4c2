"""Exported files, read back by the libraries of their formats."""

import ismrmrd
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut

from mrisem.data import dicom as dicom_images
from mrisem.errors import InputError
from mrisem.results.export import dicom, nifti
from mrisem.results.export import ismrmrd as ismrmrd_images
from mrisem.results.export.placed import PlacedImages

LPS = np.array([-1, -1, 1])


def oblique():
    """An affine of voxels of 0.8 x 1.1 x 4 mm that is turned about two axes."""
    a, b = 0.3, -0.2
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-0.8, -1.1, 4.0])
    affine[:3, 3] = 31.0, -12.5, 7.25
    return affine


AFFINE = oblique()


def scan(numbers=(3, 4, 5), placed=True, affine=AFFINE):
    images = np.random.default_rng(0).gamma(2.0, 3e-5, (len(numbers), 6, 9)).astype(np.float32)
    said = "AXT2", "unrolled + image_same", "mrisem 0: unrolled; not for diagnosis"
    return PlacedImages(images, list(numbers), affine, placed, *said)


def place(column, row, number):
    """Where a voxel lies, RAS+, by the affine alone."""
    return (AFFINE @ [column, row, number, 1])[:3]


def series(tmp_path, given, name="a"):
    dicom.write(given, tmp_path / name, dicom.Identifiers().of("subject", "a.h5"))
    return [pydicom.dcmread(path) for path in sorted((tmp_path / name).glob("*.dcm"))]


def test_nifti_has_values_place_and_units(tmp_path):
    given = scan()
    nifti.write(given, tmp_path / "a.nii.gz")
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert image.shape == (9, 6, 3)
    np.testing.assert_array_equal(image.get_fdata().transpose(2, 1, 0), given.images)
    for voxel in [(0, 0, 0), (8, 2, 1), (3, 5, 2)]:
        there = image.affine @ [*voxel, 1]
        np.testing.assert_allclose(there[:3], place(*voxel[:2], 3 + voxel[2]), atol=1e-4)
    np.testing.assert_allclose(image.header.get_zooms(), (0.8, 1.1, 4.0), rtol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)


def test_nifti_of_an_unknown_place_states_sizes_alone(tmp_path):
    nifti.write(scan(placed=False), tmp_path / "a.nii.gz")
    image = nibabel.load(tmp_path / "a.nii.gz")
    assert image.header["sform_code"] == image.header["qform_code"] == 0
    np.testing.assert_allclose(image.header.get_zooms(), (0.8, 1.1, 4.0), rtol=1e-6)


def test_nifti_says_which_slices_are_missing(tmp_path):
    given = scan((2, 3, 6))
    with pytest.warns(UserWarning, match="slices 4, 5 were not made"):
        nifti.write(given, tmp_path / "a.nii.gz")
    values = nibabel.load(tmp_path / "a.nii.gz").get_fdata()
    assert values.shape == (9, 6, 5)
    assert not values[..., 2:4].any()
    np.testing.assert_array_equal(values[..., 4].T, given.images[2])


def test_dicom_values_come_back_within_half_a_step(tmp_path):
    given = scan()
    for image, dataset in zip(given.images, series(tmp_path, given), strict=True):
        values = apply_modality_lut(dataset.pixel_array, dataset)
        assert np.abs(values - image).max() <= given.images.max() / 131070 * (1 + 1e-4)
        assert float(dataset.WindowWidth) <= given.images.max()


def test_dicom_lies_where_the_affine_says(tmp_path):
    given = scan()
    for number, dataset in zip(given.numbers, series(tmp_path, given), strict=True):
        assert (dataset.Rows, dataset.Columns) == (6, 9)
        assert dataset.InstanceNumber == number + 1
        spacing = [float(value) for value in dataset.PixelSpacing]
        x, y = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
        for column, row in [(0, 0), (8, 0), (2, 5)]:  # equation C.7.6.2.1-1
            there = np.array(dataset.ImagePositionPatient, float)
            there += x * spacing[1] * column + y * spacing[0] * row
            np.testing.assert_allclose(there * LPS, place(column, row, number), atol=1e-4)
    values, affine = dicom_images.read(tuple((tmp_path / "a").glob("*.dcm")))
    order = [np.linalg.norm(affine[:3, 3] - place(0, 0, n)) for n in given.numbers]
    assert min(order) < 1e-4
    assert values.shape == (6, 9, 3)


TYPE_1 = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    *("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("ImageType", "ScanningSequence", "SequenceVariant", "Rows", "Columns", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "PixelData"),
    *("PhotometricInterpretation", "SpecificCharacterSet", "DeidentificationMethod"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType"),
)
TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber", "SeriesNumber", "Manufacturer"),
    *("PositionReferenceIndicator", "InstanceNumber", "SliceThickness", "ScanOptions"),
    *("MRAcquisitionType", "EchoTime", "EchoTrainLength", "RepetitionTime", "PatientPosition"),
)


def test_dicom_has_the_required_tags_and_no_patient(tmp_path, monkeypatch):
    strict = pydicom.config.RAISE
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", strict)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", strict)
    for dataset in series(tmp_path, scan()):
        assert [name for name in TYPE_1 if dataset.get(name) in (None, "")] == []
        assert [name for name in TYPE_2 if name not in dataset] == []
        assert dataset.ImageType[0] == "DERIVED"
        assert dataset.SOPClassUID == pydicom.uid.MRImageStorage
        said = [e.keyword for e in dataset.group_dataset(0x0010) if e.value not in (None, "")]
        assert said == []


def test_dicom_identifiers_are_fresh_and_join_what_belongs_together(tmp_path):
    identifiers = dicom.Identifiers()
    one, other = (identifiers.of("p", "a.h5") for _ in range(2))
    stranger = identifiers.of("q", "b.h5")
    for name in ("StudyInstanceUID", "FrameOfReferenceUID"):
        assert one[name] == other[name] != stranger[name]
    assert one["SeriesInstanceUID"] != other["SeriesInstanceUID"]
    first, again = series(tmp_path, scan()), series(tmp_path, scan())
    assert {d.SOPInstanceUID for d in first}.isdisjoint(d.SOPInstanceUID for d in again)
    assert len({d.SeriesInstanceUID for d in first}) == 1


def test_dicom_replaces_an_earlier_export_and_nothing_else(tmp_path):
    series(tmp_path, scan((0, 1, 2)))
    assert len(series(tmp_path, scan((0,)))) == 1
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        series(tmp_path, scan())
    assert (tmp_path / "a" / "notes.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_dicom_of_a_sheared_affine_is_refused(tmp_path):
    sheared = AFFINE.copy()
    sheared[:3, 1] += 0.3 * sheared[:3, 0]
    with pytest.raises(InputError, match="perpendicular"):
        series(tmp_path, scan(affine=sheared))


def test_ismrmrd_has_values_and_place(tmp_path):
    given = scan()
    ismrmrd_images.write(given, tmp_path / "a.mrd")
    with ismrmrd.Dataset(str(tmp_path / "a.mrd"), "dataset", create_if_needed=False) as file:
        assert file.number_of_images("image_0") == 3
        images = [file.read_image("image_0", index) for index in range(3)]
    for image, values, number in zip(images, given.images, given.numbers, strict=True):
        np.testing.assert_array_equal(image.data[0, 0], values)
        assert tuple(image.matrix_size) == (9, 6, 1)
        assert image.slice == number
        np.testing.assert_allclose(image.field_of_view[:], (7.2, 6.6, 4.0), rtol=1e-6)
        middle = np.array(image.position[:])
        np.testing.assert_allclose(middle * LPS, place(4, 2.5, number), atol=1e-4)
        first = middle - 4 * 0.8 * np.array(image.read_dir[:])
        first -= 2.5 * 1.1 * np.array(image.phase_dir[:])
        np.testing.assert_allclose(first * LPS, place(0, 0, number), atol=1e-4)
        assert "not for diagnosis" in image.attribute_string
