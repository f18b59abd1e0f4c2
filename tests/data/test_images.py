"""Readers of NIfTI and DICOM against the intensity that an invented head has at each place."""

import gzip
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from mrisem.data.cuts import PLANES, Cut, choose_plane, choose_slices, cut_slice, resampling
from mrisem.data.images import Voxels, find_images, load
from mrisem.errors import InputError

PEAK = {"x": 20.0, "y": 14.0, "z": 8.0}  # mm to the right, front and head of the centre


def only(root):
    (image,) = find_images(root)
    return image


def place_of_peak(pixels, edge):
    """Place of the brightest pixel in mm from the middle: downwards, to the right of the page."""
    row, column = np.unravel_index(pixels.argmax(), pixels.shape)
    middle = (len(pixels) - 1) / 2
    return (row - middle) * edge, (column - middle) * edge


ORIENTED = {
    "RAS": ([(2.5, 0, 0), (0, 2.5, 0), (0, 0, 2.5)], (48, 56, 52)),
    "LPI": ([(-2.5, 0, 0), (0, -2.5, 0), (0, 0, -2.5)], (48, 56, 52)),
    "ASL": ([(0, 2, 0), (0, 0, 2.2), (-3, 0, 0)], (60, 56, 42)),
    "SRP": ([(0, 0, 2.4), (1.8, 0, 0), (0, -2.2, 0)], (56, 64, 64)),
}


@pytest.mark.parametrize("name", ORIENTED)
def test_nifti_slices_are_turned_and_scaled_by_the_affine(tmp_path, write_nifti, name):
    columns, shape = ORIENTED[name]
    image = only(write_nifti(tmp_path / "a.nii.gz", columns=columns, shape=shape))
    voxels = load(image)
    assert nibabel.aff2axcodes(nibabel.load(image.paths[0]).affine) == tuple(name)
    # right at the left of the page, front or head up; in a sagittal slice the front at the left
    expected = {"axial": ("y", "x"), "coronal": ("z", "x"), "sagittal": ("z", "y")}
    for plane, (up, left) in expected.items():
        axis = PLANES[plane]
        across = PEAK["xyz"[axis]] / voxels.spacing[axis] + (voxels.values.shape[axis] - 1) / 2
        pixels, edge = cut_slice(voxels, plane, round(across), 96)
        down, right = place_of_peak(pixels, edge)
        assert abs(down + PEAK[up]) < 1.6
        assert abs(right + PEAK[left]) < 1.6
        sizes = [
            voxels.values.shape["xyz".index(a)] * voxels.spacing["xyz".index(a)] for a in (up, left)
        ]
        assert edge == pytest.approx(max(sizes) / 96)


def test_nifti_scale_of_the_header_is_applied(tmp_path, write_nifti):
    raw = np.random.default_rng(0).integers(0, 1000, (6, 7, 8)).astype(np.int16)
    path = write_nifti(tmp_path / "a.nii", raw * 0.25 + 3)
    image = nibabel.Nifti1Image(raw * 0.25 + 3, nibabel.load(path).affine)
    image.set_data_dtype(np.int16)  # nibabel chooses slope and intercept
    nibabel.save(image, path)
    assert nibabel.load(path).dataobj.slope != 1
    np.testing.assert_allclose(load(only(path)).values, raw * 0.25 + 3, atol=0.01)


def test_dicom_and_nifti_of_the_same_head_have_the_same_voxels(tmp_path, write_nifti, write_series):
    voxels = load(only(write_series(tmp_path / "dicom", n_slices=16)))
    # DICOM: rows run down (2 mm), columns to the back (3 mm), slices to the left (6 mm)
    columns = [(0, 0, -2.0), (0, -3.0, 0), (-6.0, 0, 0)]
    path = write_nifti(tmp_path / "nifti" / "a.nii", columns=columns, shape=(40, 44, 16))
    expected = load(only(path))
    assert voxels.spacing == pytest.approx((6, 3, 2))
    assert expected.spacing == pytest.approx((6, 3, 2))
    np.testing.assert_allclose(voxels.values, expected.values, atol=1.3)  # both round to numbers
    assert choose_plane(voxels, Cut(64)) == "sagittal"


def test_dicom_neither_names_nor_order_of_files_count(tmp_path, write_series):
    first = only(write_series(tmp_path / "a"))
    (tmp_path / "b").mkdir()
    for number, path in enumerate(sorted((tmp_path / "a").iterdir(), reverse=True)):
        shutil.copy(path, tmp_path / "b" / f"image{number}")  # without an ending
    other = only(tmp_path / "b")
    assert (first.label, first.subject, first.digest) == (other.label, other.subject, other.digest)
    np.testing.assert_array_equal(load(first).values, load(other).values)
    assert "P1" not in first.subject + first.label


def test_echoes_are_images_of_one_subject_and_other_files_are_passed_over(tmp_path, write_series):
    for echo in (1, 2):
        series = {"EchoNumbers": echo, "EchoTime": 10 * echo, "SeriesNumber": 3}
        write_series(tmp_path / f"echo{echo}", **series)
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.nii").write_text("none")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    images = find_images(tmp_path)
    assert [image.label.split("-")[0] for image in images] == ["series3_echo1", "series3_echo2"]
    assert len({image.subject for image in images}) == 1


def test_subject_of_a_nifti_is_its_content_or_its_bids_name(tmp_path, write_nifti):
    path = write_nifti(tmp_path / "one" / "T1.nii")
    (tmp_path / "two").mkdir()
    shutil.copy(path, tmp_path / "two" / "other name.nii")
    assert only(tmp_path / "one").subject == only(tmp_path / "two").subject
    assert only(tmp_path).paths == (path,)  # equal files count once
    for name in ("sub-07_T1w.nii", "sub-07_T2w.nii"):
        write_nifti(tmp_path / "bids" / name, shape=(20, 20, 20 + len(name)))
    write_nifti(tmp_path / "bids" / "sub-07_ses-1_PD.nii", shape=(20, 20, 22))
    assert {image.subject for image in find_images(tmp_path / "bids")} == {"sub-07"}


@pytest.mark.parametrize(("n", "ratio", "size"), [(40, 1.0, 40), (40, 0.8, 32), (41, 1.7, 96)])
def test_resampling_gives_what_a_smooth_function_has_there(n, ratio, size):
    def values(mm):
        return np.exp(-np.square((mm - 3) / 6.0)) + 0.5 * np.exp(-np.square((mm + 6) / 5.0))

    old = np.arange(n) - (n - 1) / 2
    new = (np.arange(size) - (size - 1) / 2) / ratio
    inside = np.abs(new) <= n / 2
    made = resampling(n, ratio, size) @ values(old)
    np.testing.assert_allclose(made[inside], values(new)[inside], atol=2e-4)


def test_resampling_to_larger_pixels_does_not_alias():
    stripes = np.cos(2 * np.pi * 0.4 * np.arange(128))  # finer than the new pixels can show
    assert np.abs(resampling(128, 0.5, 64) @ stripes)[8:-8].max() < 0.02
    flat = resampling(128, 0.5, 64) @ np.ones(128)
    np.testing.assert_allclose(flat[8:-8], 1, atol=0.02)


BLOCK = np.zeros((6, 6, 20), dtype=np.float32)
BLOCK[..., 4:16] = 1.0  # the object: slices 4 to 15


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (Cut(64, "axial", 1.0, n_slices=3), [9, 10, 11]),
        (Cut(64, "axial", 5.0, n_slices=3), [7, 10, 12]),
        (Cut(64, "axial", 0.1, n_slices=12), [*range(4, 16)]),
        (Cut(64, "axial", 4.0, center=0.0, n_slices=1), [4]),
        (Cut(64, "axial", 4.0, center=1.0), [5, 7, 9, 11, 13, 15]),
        (Cut(64, "axial", 8.0), [6, 10, 14]),
    ],
)
def test_choose_slices_are_spaced_within_the_object(cut, expected):
    assert choose_slices(Voxels(BLOCK, (1.0, 1.0, 2.0)), cut, "a.nii") == expected


def test_choose_slices_more_than_the_object_has_is_an_input_error():
    with pytest.raises(InputError, match=r"must lie in the object, which has 12 slices of 2.0 mm"):
        choose_slices(Voxels(BLOCK, (1.0, 1.0, 2.0)), Cut(64, "axial", 5.0, n_slices=6), "a.nii")


def bad_nifti(path, write):
    """Write one bad file for each rule that it breaks."""
    rng = np.random.default_rng(0)
    block = rng.random((8, 8, 8), dtype=np.float32)
    holed = block.copy()
    holed[3, 3, 3] = np.nan
    colours = np.zeros((8, 8, 8), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    damaged = gzip.compress(write(path / "x" / "x.nii", block).read_bytes())[:-200]
    shutil.rmtree(path / "x")
    return {
        "three axes": rng.random((8, 8, 8, 3), dtype=np.float32),
        "colours or complex": colours,
        "numbers\\) in": block.astype(np.complex64),
        "got NaN or infinity": holed,
        "must be positive": block - 0.5,
        "complete NIfTI file": damaged,
    }


@pytest.mark.parametrize("rule", range(6))
def test_bad_nifti_is_one_line(tmp_path, write_nifti, rule):
    said, content = list(bad_nifti(tmp_path, write_nifti).items())[rule]
    path = tmp_path / "bad.nii.gz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_nifti(path, content)
    with pytest.raises(InputError, match=said) as caught:
        load(only(tmp_path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nifti_with_voxels_of_no_image_is_refused(tmp_path, write_nifti):
    columns = [(1, 0, 0), (0, 1, 0), (0, 0, 100)]
    write_nifti(tmp_path / "a.nii", np.ones((4, 4, 4), dtype=np.int16), columns)
    with pytest.raises(InputError, match=r"at most 50 times .* got 1 x 1 x 100 mm"):
        load(only(tmp_path))


def test_nifti_without_orientation_is_warned_of(tmp_path):
    image = nibabel.Nifti1Image(np.ones((4, 4, 4), dtype=np.int16), None)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.warns(UserWarning, match="states no orientation"):
        load(only(tmp_path))


def compressed(number, ds, syntax="JPEGLosslessSV1"):
    import pydicom.uid
    from pydicom.encaps import encapsulate

    ds.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    ds.PixelData = encapsulate([b"\xff\x4f\xff\x51none"])
    ds["PixelData"].is_undefined_length = True


def badly_compressed(number, ds):
    compressed(number, ds, "JPEG2000Lossless")  # which pillow would decode


def larger(number, ds):
    if number == 4:
        ds.Rows, ds.PixelData = 20, ds.PixelData[: 20 * 44 * 2]


def cut_short(number, ds):
    if number == 4:
        ds.PixelData = ds.PixelData[:100]


def turned(number, ds):
    if number == 4:
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]


def colour(number, ds):
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0


def doubled(number, ds):
    if number == 4:
        ds.ImagePositionPatient = [ds.ImagePositionPatient[0] - 6, *ds.ImagePositionPatient[1:]]


def away(number, ds):
    if number > 4:
        ds.ImagePositionPatient = [ds.ImagePositionPatient[0] + 6, *ds.ImagePositionPatient[1:]]


def nowhere(number, ds):
    del ds.ImagePositionPatient


def frames(number, ds):
    ds.NumberOfFrames = 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (compressed, "needs an installed decoder"),
        (badly_compressed, "must be a DICOM image"),
        (larger, "must share their size"),
        (cut_short, "must be a DICOM image"),
        (turned, "must share their ImageOrientationPatient"),
        (colour, "one grey image"),
        (frames, "one grey image"),
        (doubled, "one image at each position"),
        (away, "must lie evenly"),
        (nowhere, "must state ImagePositionPatient"),
    ],
)
def test_bad_dicom_is_one_line(tmp_path, write_series, caplog, change, said):
    write_series(tmp_path, change=change)
    with pytest.raises(InputError, match=said) as caught:
        load(only(tmp_path))
    assert "\n" not in str(caught.value)
    assert not caplog.records  # pydicom would log tracebacks


def test_dicom_with_a_number_that_is_none_is_one_line(tmp_path, write_series):
    write_series(tmp_path)
    path = sorted(tmp_path.iterdir())[3]
    path.write_bytes(path.read_bytes().replace(b"2.0\\3.0", b"2.x\\3.0"))
    with pytest.raises(InputError, match="must be a DICOM image, but cannot be read") as caught:
        load(only(tmp_path))
    assert str(path) in str(caught.value)


def test_a_file_that_only_claims_to_be_dicom_is_named_or_left_out(tmp_path, write_series):
    write_series(tmp_path)
    (tmp_path / "bad.dcm").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"bad\.dcm must be a DICOM image"):
        find_images(tmp_path)
    with pytest.warns(UserWarning, match=r"left out: .*bad\.dcm"):
        assert len(find_images(tmp_path, "skip")) == 1


def test_no_images_is_an_input_error(tmp_path):
    (tmp_path / "a.txt").write_text("none")
    with pytest.raises(InputError, match="must hold images"):
        find_images(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        find_images(tmp_path / "nowhere")


def test_images_of_hospitals_are_read():
    beside = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("MRISEM_TEST_DATA", beside)) / "images"
    if not folder.is_dir():
        pytest.skip("magnitude images not found: set MRISEM_TEST_DATA to their folder")
    planes = {}
    for image in find_images(folder):
        voxels = load(image)
        planes[image.label.split("-")[0]] = choose_plane(voxels, Cut(64))
        pixels, _ = cut_slice(voxels, "axial", voxels.values.shape[2] // 2, 64)
        assert np.isfinite(pixels).all()
        assert pixels.max() > 0
    assert planes.pop("series8_echo1") == planes.pop("series8_echo4") == "sagittal"
    assert {*planes.values()} == {"axial"}
