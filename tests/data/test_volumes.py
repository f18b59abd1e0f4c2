import re

import h5py
import numpy as np
import pytest

from mrisem.data.folders import find_volumes, select_acquisition
from mrisem.data.volumes import UNNAMED, inspect_volume
from mrisem.errors import InputError


def test_inspect_volume_reads_the_header_facts(tmp_path, make_file):
    volume = inspect_volume(make_file(tmp_path / "a.h5"))
    assert (volume.file, volume.acquisition, volume.subject) == ("a.h5", "AXT2", "subject-a")
    assert (volume.shape, volume.n_slices) == ((2, 4, 64, 48), 2)
    assert (volume.padding, volume.crop) == ((2, 46), (32, 32))


def test_inspect_volume_reads_how_a_file_says_it_was_simulated(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5")
    assert inspect_volume(path).simulation == ""
    with h5py.File(path, "a") as file:
        file.attrs["simulation"] = "simulated from images: a.nii"
    assert inspect_volume(path).simulation == "simulated from images: a.nii"


def test_inspect_volume_takes_the_crop_from_the_target_before_the_header(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["reconstruction_rss"]
        file["reconstruction_rss"] = np.zeros((2, 30, 28), np.float32)
    assert inspect_volume(path).crop == (30, 28)


def test_inspect_volume_narrows_a_recon_space_wider_than_kspace_to_a_square(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5", crop=(50, 50), target=False)
    assert inspect_volume(path).crop == (48, 48)


def test_inspect_volume_falls_back_on_the_stem_as_subject(tmp_path, make_file):
    path = make_file(tmp_path / "file_7.h5", subject=None, acquisition=None)
    volume = inspect_volume(path)
    assert (volume.subject, volume.acquisition) == ("file_7", UNNAMED)


@pytest.mark.parametrize(
    ("shape", "crop"),
    [((1, 2, 64, 40), (32, 32)), ((1, 2, 64, 24), (32, 24)), ((1, 2, 50, 48), None)],
)
def test_plain_files_get_derived_facts_and_a_warning(tmp_path, make_file, shape, crop):
    path = make_file(tmp_path / "a.h5", shape=shape, padding=(3, 20), header=False, target=False)
    with pytest.warns(UserWarning, match=r"a\.h5 has no ismrmrd_header: derived"):
        volume = inspect_volume(path)
    assert volume.padding == (3, 20)
    assert volume.crop == (crop or shape[2:])


def test_plain_files_with_a_mask_have_no_derived_padding(tmp_path, make_file):
    mask = np.arange(48) % 2
    path = make_file(tmp_path / "a.h5", header=False, mask=mask)
    with pytest.warns(UserWarning, match="no ismrmrd_header"):
        assert inspect_volume(path).padding == (0, 48)


def test_inspect_volume_refuses_a_truncated_file(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match=r"a\.h5 must be a complete HDF5 file"):
        inspect_volume(path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"a\.h5 must be a complete HDF5 file"):
        inspect_volume(path)


@pytest.mark.parametrize(
    ("kspace", "message"),
    [
        (np.zeros((2, 64, 48), np.complex64), r"\(slice, coil, y, x\), got \(2, 64, 48\)"),
        (np.zeros((2, 4, 64, 48), np.float32), r"complex64, got float32"),
        (None, r"must hold a dataset 'kspace', got \['ismrmrd_header'\]"),
    ],
)
def test_inspect_volume_refuses_other_kspace(tmp_path, make_file, kspace, message):
    path = make_file(tmp_path / "a.h5", target=False)
    with h5py.File(path, "a") as file:
        del file["kspace"]
        if kspace is not None:
            file["kspace"] = kspace
    with pytest.raises(InputError, match=message) as caught:
        inspect_volume(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", [b"no XML", b"<a>", b"\xff\xfe", np.arange(3)])
def test_inspect_volume_refuses_a_broken_header(tmp_path, make_file, header):
    path = make_file(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["ismrmrd_header"]
        file["ismrmrd_header"] = header
    with pytest.raises(InputError, match=r"ismrmrd_header of .*a\.h5"):
        inspect_volume(path)


def test_inspect_volume_refuses_a_target_that_does_not_fit(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5", target=False)
    with h5py.File(path, "a") as file:
        file["reconstruction_rss"] = np.zeros((1, 32, 32), np.float32)
    with pytest.raises(InputError, match=r"within kspace \(2, 4, 64, 48\), got \(1, 32, 32\)"):
        inspect_volume(path)


def test_find_volumes_names_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="nowhere, which does not exist"):
        find_volumes(tmp_path / "nowhere", "val")
    (tmp_path / "multicoil_train").mkdir()
    found = re.escape("got ['multicoil_train']")
    with pytest.raises(InputError, match=f"must hold a folder multicoil_val, {found}"):
        find_volumes(tmp_path, "val")
    (tmp_path / "multicoil_train" / ".hidden.h5").touch()
    with pytest.raises(InputError, match=r"must hold scans that end in \.h5"):
        find_volumes(tmp_path, "train")


def test_find_volumes_sorts_and_skips_bad_files_on_demand(tmp_path, make_file):
    for name in ("b", "a"):
        make_file(tmp_path / "multicoil_val" / f"{name}.h5")
    (tmp_path / "multicoil_val" / "bad.h5").write_bytes(b"")
    with pytest.raises(InputError, match=r"bad\.h5"):
        find_volumes(tmp_path, "val")
    volumes, failed = find_volumes(tmp_path, "val", "skip")
    assert [volume.file for volume in volumes] == ["a.h5", "b.h5"]
    assert [scan.file for scan in failed] == ["bad.h5"]


def test_select_acquisition_filters_and_lists_names(tmp_path, make_file):
    volumes = [
        inspect_volume(make_file(tmp_path / f"{name}.h5", acquisition=name))
        for name in ("AXT1", "AXT2", "CORPD_FBK")
    ]
    known = ("AXT1", "AXT2", "AXFLAIR")
    files = [v.file for v in select_acquisition(volumes, None, known, "brain")]
    assert files == ["AXT1.h5", "AXT2.h5"]
    assert len(select_acquisition(volumes, "AXT2", known, "brain")) == 1
    with pytest.raises(InputError, match=r"one of \['AXT1', 'AXT2', 'AXFLAIR'\].*got 'AXT9'"):
        select_acquisition(volumes, "AXT9", known, "brain")
    with pytest.raises(InputError, match=r"\['AXFLAIR'\], got \['AXT1', 'AXT2', 'CORPD"):
        select_acquisition(volumes, "AXFLAIR", known, "brain")


def test_select_acquisition_takes_unnamed_files_as_the_one_asked_for(tmp_path, make_file):
    volume = inspect_volume(make_file(tmp_path / "a.h5", acquisition=None))
    with pytest.warns(UserWarning, match="1 files name no acquisition and count as AXT1"):
        (named,) = select_acquisition([volume], "AXT1", ("AXT1",), "brain")
    assert named.acquisition == "AXT1"
    assert select_acquisition([volume], None, ("AXT1",), "brain") == [volume]
