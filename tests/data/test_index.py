"""The index of a data set: a later start opens no file, but each that has changed."""

import os
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mrisem.data import contents
from mrisem.data.anatomies import FastMRIBrain
from mrisem.data.folders import find_volumes
from mrisem.data.index import FileIndex
from mrisem.data.volumes import inspect_volume
from mrisem.errors import InputError
from mrisem.physics.masks import GaussianMask

SHAPE = {"shape": (2, 2, 32, 48), "crop": (16, 16)}


def settle(*folders):
    """Let files look as if they had been there for an hour."""
    for folder in folders:
        for path in Path(folder).rglob("*.h5"):
            os.utime(path, (time.time() - 3600,) * 2)


@pytest.fixture
def opened(monkeypatch):
    """Names of the data files that are opened, one for each time."""
    names, ours = [], contents.h5py.File

    class Counted(ours):
        def __init__(self, path, mode="r", **options):
            names.append(Path(path).name)
            super().__init__(path, mode, **options)

    monkeypatch.setattr(contents.h5py, "File", Counted)
    return names


@pytest.fixture
def root(tmp_path, make_file):
    for i in range(4):
        make_file(tmp_path / "data/multicoil_train" / f"t{i}.h5", subject=f"t{i}", **SHAPE)
    for i in range(3):
        make_file(tmp_path / "data/multicoil_val" / f"v{i}.h5", subject=f"v{i}", **SHAPE)
    settle(tmp_path)
    return tmp_path / "data"


def start(root):
    """All that a start asks of the files: facts, what tells scans apart, what a bank depends on."""
    data = FastMRIBrain(root, GaussianMask(4, 8), index_folder=root.parent / "index")
    data.setup("predict")
    with data.index:
        found = [(part.volume, part.slice, part.volume.content) for part in data.slices]
    return found, data.auxiliary_slices("AXT2").fingerprint


def test_a_later_start_opens_no_file_and_finds_the_same(root, opened):
    first = start(root)
    assert {*opened} == {*(f"t{i}.h5" for i in range(4)), *(f"v{i}.h5" for i in range(3))}
    opened.clear()
    assert start(root) == first
    assert opened == []
    without = FastMRIBrain(root, GaussianMask(4, 8))
    assert [part.volume for part in without.slices] == [found[0] for found in first[0]]
    assert without.auxiliary_slices("AXT2").fingerprint == first[1]


def test_only_a_file_that_changed_is_opened_again(root, opened, make_file):
    before = start(root)
    path = root / "multicoil_val" / "v1.h5"
    stat = path.stat()
    with h5py.File(path, "r+") as file:  # the same size
        file["kspace"][...] = np.roll(file["kspace"][()], 1, axis=0)
    assert path.stat().st_size == stat.st_size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the time of change betrays it
    opened.clear()
    after = start(root)
    assert {*opened} == {"v1.h5"}
    changed = [a[0].file for a, b in zip(after[0], before[0], strict=True) if a[2] != b[2]]
    assert changed == ["v1.h5"] * 2
    make_file(root / "multicoil_val" / "new.h5", subject="v9", **SHAPE)
    (root / "multicoil_val" / "v0.h5").unlink()
    opened.clear()
    files = {found[0].file for found in start(root)[0]}
    assert files == {"new.h5", "v1.h5", "v2.h5"}
    assert {*opened} == {"new.h5"}


def test_a_file_replaced_under_its_name_is_opened_again(root, opened):
    start(root)
    path, other = (root / "multicoil_val" / name for name in ("v0.h5", "v1.h5"))
    other.replace(path)
    opened.clear()
    (subject,) = {found[0].subject for found in start(root)[0] if found[0].file == "v0.h5"}
    assert subject == "v1"
    assert "v0.h5" in opened


def test_what_has_just_been_written_is_not_kept(tmp_path, make_file, opened):
    path = make_file(tmp_path / "a.h5", **SHAPE)
    opened.clear()
    for _ in range(2):
        with FileIndex(tmp_path / "index") as index:
            inspect_volume(path, index=index)
    assert opened == ["a.h5"] * 2


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", "last byte", "other code"])
def test_a_damaged_index_is_made_again(root, opened, damage, monkeypatch):
    before = start(root)
    files = sorted((root.parent / "index").glob("*.json"))
    assert len(files) == 2
    for file in files:
        whole = file.read_bytes()
        if damage == "other code":
            monkeypatch.setattr("mrisem.data.index._READERS", ("header",))
        else:
            file.write_bytes(whole[:-3] + b"1}\n" if damage == "last byte" else damage)
    opened.clear()
    assert start(root) == before
    assert len({*opened}) == 7
    opened.clear()
    assert start(root) == before
    assert opened == []


def test_bad_files_are_never_kept(root, opened):
    path = root / "multicoil_val" / "v0.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    settle(root)
    for _ in range(2):
        with pytest.raises(InputError, match=r"v0\.h5"):
            start(root)
    path.write_bytes(whole)
    settle(root)
    assert len(start(root)[0]) == 6


def test_what_lies_in_another_file_is_read_each_time(tmp_path, make_file, opened):
    source = make_file(tmp_path / "multicoil_val" / "source.h5", **SHAPE)
    layout = h5py.VirtualLayout(SHAPE["shape"], np.complex64)
    layout[...] = h5py.VirtualSource(source, "kspace", SHAPE["shape"])
    path = tmp_path / "multicoil_val" / "virtual.h5"
    with h5py.File(path, "w") as file, h5py.File(source) as other:
        file.create_virtual_dataset("kspace", layout)
        other.copy("ismrmrd_header", file)
    settle(tmp_path)
    for _ in range(2):
        opened.clear()
        with FileIndex(tmp_path / "index") as index:
            before = inspect_volume(path, index=index).content
        assert "virtual.h5" in opened
    with h5py.File(source, "r+") as file:
        file["kspace"][...] *= 2
    with FileIndex(tmp_path / "index") as index:
        assert inspect_volume(path, index=index).content != before


def test_warnings_about_a_file_are_said_at_each_start(tmp_path, make_file, opened):
    path = make_file(tmp_path / "a.h5", header=False, **SHAPE)
    settle(tmp_path)
    opened.clear()
    for _ in range(2):
        with (
            FileIndex(tmp_path / "index") as index,
            pytest.warns(UserWarning, match="has no ismrmrd_header: derived"),
        ):
            inspect_volume(path, index=index)
    assert opened == ["a.h5"]


def test_a_cache_that_cannot_be_written_is_said_and_costs_nothing_else(root, opened):
    (root.parent / "index").write_text("a file")
    with pytest.warns(UserWarning, match="cannot be written") as caught:
        assert len(start(root)[0]) == 6
    assert all("set another paths.cache" in str(warning.message) for warning in caught)


def test_processes_that_start_at_once_keep_what_each_has_read(root, opened):
    paths = sorted(root.rglob("v*.h5"))
    volumes = [inspect_volume(path) for path in paths]
    with FileIndex(root.parent / "index") as one, FileIndex(root.parent / "index") as other:
        inspect_volume(paths[0], index=one)
        inspect_volume(paths[1], index=other)
        assert inspect_volume(paths[2], index=one).content == volumes[2].content
        assert inspect_volume(paths[2], index=other).middle == volumes[2].middle
    opened.clear()
    index = FileIndex(root.parent / "index")
    again = [inspect_volume(path, index=index) for path in paths]
    assert again == volumes
    assert (again[2].content, again[2].middle) == (volumes[2].content, volumes[2].middle)
    assert opened == [paths[2].name]  # by the volume without an index
    assert [*(root.parent / "index").glob(".*.partial")] == []


def test_files_without_patient_id_are_warned_about_once_for_a_folder(root, make_file):
    folder = root / "multicoil_val"
    for name in ("v0", "v1"):
        make_file(folder / f"{name}.h5", subject=None, **SHAPE)
    with pytest.warns(UserWarning, match=r"2 files have no patient_id, such as v0\.h5") as said:
        volumes, _ = find_volumes(root, "val")
    assert len(said) == 1
    assert [volume.subject for volume in volumes] == ["v0", "v1", "v2"]
