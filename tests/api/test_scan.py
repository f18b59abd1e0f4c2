"""Scans: which slices of which files, and what is refused."""

import shutil

import h5py
import numpy as np
import pytest

import mrisem as api
from mrisem import InputError


def test_load_takes_indices_and_central_slices(file):
    assert api.load(file).slices == ((file.name, 0), (file.name, 1))
    assert api.load(file, slices=[1]).slices == ((file.name, 1),)
    assert api.load(file, max_slices=1).slices == ((file.name, 0),)


def test_a_slice_alone_is_the_one_of_the_whole_scan(file, cg):
    mask = api.masks.gaussian(4, seed=3)
    alone = api.cg_sense(api.load(file, slices=[1]).undersample(mask))
    assert alone.slices == ((file.name, 1),)
    np.testing.assert_allclose(alone.image[0], cg.image[1], rtol=1e-4)


def test_target_is_the_files(file):
    with h5py.File(file) as content:
        np.testing.assert_array_equal(
            api.load(file, slices=[1]).target[0], content["reconstruction_rss"][1]
        )


def test_folder_of_slices_is_one_scan(file, tmp_path):
    for index in (0, 1):
        with h5py.File(file) as whole, h5py.File(tmp_path / f"s{index}.h5", "w") as part:
            for name in ("kspace", "reconstruction_rss"):
                part[name] = whole[name][index : index + 1]
            part["ismrmrd_header"] = whole["ismrmrd_header"][()]
            part.attrs.update(whole.attrs)
    scan = api.load(tmp_path).undersample(api.masks.gaussian(4))
    assert scan.slices == (("s0.h5", 0), ("s1.h5", 0))
    result = api.zero_filled(scan)
    assert result.image.shape == scan.target.shape == (2, 96, 96)
    assert len(api.score(scan, result)) == 2


def test_file_without_acquisition_gets_the_one_that_is_named(file, tmp_path):
    copy = shutil.copy(file, tmp_path / "scan.h5")
    with h5py.File(copy, "a") as content:
        del content.attrs["acquisition"]
    assert api.load(copy).acquisitions == ["unnamed"]
    with pytest.warns(UserWarning, match="count as AXT2"):
        scan = api.load(copy, acquisition="AXT2")
    assert scan.acquisitions == ["AXT2"]
    assert "data=brain" in scan.undersample(api.masks.gaussian()).words()


def test_knees_are_reconstructed_as_knees(simulated):
    (path, *_) = sorted((simulated / "knee" / "multicoil_val").glob("*.h5"))
    words = api.load(path).undersample(api.masks.gaussian()).words()
    assert words[:3] == ["data=knee", f"data.root={simulated}/knee", "data.split=val"]


def test_scan_says_what_it_is(scan, file):
    text = repr(scan)
    assert file.name in text
    assert "2 slices" in text
    assert "mask.acceleration=4 seed=3" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slices": [2]}, "from 0 to 1, got \\[2\\]"),
        ({"slices": []}, "from 0 to 1"),
        ({"slices": 1}, "max_slices=1"),
        ({"slices": [0], "max_slices": 1}, "exclude each other"),
        ({"acquisition": "AXT7"}, "AXT7"),
        ({"acquisition": "AXT1"}, "got \\['AXT2'\\] in the files"),
    ],
)
def test_load_refuses(file, options, message):
    with pytest.raises(InputError, match=message):
        api.load(file, **options)


def test_load_refuses_what_is_no_scan(tmp_path):
    with pytest.raises(InputError, match="holds none"):
        api.load(tmp_path)
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(InputError):
        api.load(tmp_path / "text.h5")


def test_a_scan_must_be_undersampled(file):
    with pytest.raises(InputError, match=r"scan\.undersample"):
        api.cg_sense(api.load(file))


def test_empty_slices_are_left_out_and_named(file, tmp_path):
    copy = shutil.copy(file, tmp_path / file.name)
    with h5py.File(copy, "a") as content:
        content["kspace"][0] = 0
    scan = api.undersample(api.load(copy), api.masks.gaussian(4))
    with pytest.warns(UserWarning, match="only zeros"):
        result = api.zero_filled(scan)
    assert result.slices == ((file.name, 1),)
    assert [failure.slices for failure in result.failed] == [(0,)]
    with pytest.raises(InputError, match="no image of slice 0"):
        api.show(scan, result, position=0)


def test_a_scan_of_empty_slices_is_refused(file, tmp_path):
    copy = shutil.copy(file, tmp_path / file.name)
    with h5py.File(copy, "a") as content:
        content["kspace"][()] = 0
    scan = api.load(copy).undersample(api.masks.gaussian(4))
    with (
        pytest.warns(UserWarning, match="only zeros"),
        pytest.raises(InputError, match="must reconstruct a slice, all 2 failed"),
    ):
        api.zero_filled(scan)
