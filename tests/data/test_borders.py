"""Files as people have them: each is read, or refused in one line that says why."""

import os
import re
import socket

import h5py
import numpy as np
import pytest
import torch

from mrisem.data import contents
from mrisem.data.arrays import target_name
from mrisem.data.dataset import SliceGroups, central_slices
from mrisem.data.folders import find_volumes, split_folder
from mrisem.data.slices import read_slice
from mrisem.data.volumes import inspect_volume
from mrisem.data.writer import ismrmrd_header
from mrisem.errors import InputError
from mrisem.physics.masks import FileMask, GaussianMask

MASK = GaussianMask(4, calibration_lines=8)
SHAPE, CROP, PADDING = (2, 4, 64, 48), (32, 32), (2, 46)
HEADER = ismrmrd_header(SHAPE, CROP, PADDING)


@pytest.fixture
def path(tmp_path, make_file):
    return make_file(tmp_path / "multicoil_val" / "a.h5")


def put(path, **datasets):
    """Replace datasets of a file; None removes one."""
    with h5py.File(path, "a") as file:
        for name, values in datasets.items():
            if name in file:
                del file[name]
            if values is not None:
                file[name] = values


def kspace_of(path):
    with h5py.File(path) as file:
        return file["kspace"][()]


def batch_of(path, mask=MASK):
    volume = inspect_volume(path)
    return SliceGroups(central_slices([volume], None), mask)[0]


def refused(path, words, mask=MASK):
    with pytest.raises(InputError, match=words) as caught:
        batch_of(path, mask)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def without(tag, header=HEADER):
    return re.sub(rf"<{tag}>.*?</{tag}>", "", header, flags=re.DOTALL)


@pytest.mark.parametrize(
    "header",
    [
        without("encodingLimits"),
        without("center"),
        without("encodedSpace"),
        HEADER.replace("<center>22<", "<center><"),
        HEADER.replace("<center>22<", "<center>nan<"),
        HEADER.replace("<center>22<", "<center>-3<"),
        HEADER.replace("<center>22<", "<center>inf<"),
        HEADER.replace("<center>22<", "<center>22.5<"),
        HEADER.replace("<center>22<", "<center>9999<"),
        HEADER.replace("<maximum>43<", "<maximum>many<"),
    ],
)
def test_padding_that_a_header_leaves_open_is_derived_and_said(path, header):
    assert HEADER.count("<center>22<") == HEADER.count("<maximum>43<") == 1
    put(path, ismrmrd_header=header)
    with pytest.warns(UserWarning, match=r"a\.h5 .*: derived .* columns 2 to 46 acquired$"):
        volume = inspect_volume(path)
    assert (volume.padding, volume.crop) == (PADDING, CROP)


def test_size_that_a_header_leaves_open_is_derived_and_said(path):
    put(path, ismrmrd_header=without("reconSpace"), reconstruction_rss=None)
    with pytest.warns(UserWarning, match=r"derived .*: images are 64 x 48$"):
        volume = inspect_volume(path)
    assert (volume.padding, volume.crop) == (PADDING, (64, 48))


def test_header_without_namespace_is_read(path):
    put(path, ismrmrd_header=HEADER.replace(' xmlns="http://www.ismrm.org/ISMRMRD"', ""))
    assert inspect_volume(path).padding == PADDING


def test_recon_space_beyond_both_axes_stays_within_kspace(tmp_path, make_file):
    shape = (1, 2, 32, 48)
    path = make_file(tmp_path / "a.h5", shape=shape, target=False, header=False)
    put(path, ismrmrd_header=ismrmrd_header(shape, (60, 60), PADDING))
    assert inspect_volume(path).crop == (32, 48)


@pytest.mark.parametrize("esc", [True, False])
def test_single_coil_layout_is_one_coil(tmp_path, path, esc):
    kspace = kspace_of(path)[:, 0]
    single = tmp_path / "other" / "singlecoil_val" / "a.h5"
    single.parent.mkdir(parents=True)
    rss = np.ones((2, *CROP), np.float32)
    with h5py.File(single, "w") as file:
        file["kspace"], file["reconstruction_rss"] = kspace, rss
        file["ismrmrd_header"], file.attrs["patient_id"] = HEADER, "a"
        if esc:
            file["reconstruction_esc"] = 2 * rss
    (volume,), failed = find_volumes(tmp_path / "other", "val")
    assert not failed
    assert volume.shape == (2, 1, 64, 48)
    batch = batch_of(single)
    assert torch.equal(batch.sensitivity_maps, torch.ones_like(batch.sensitivity_maps))
    assert float(batch.target.unique()) == (2 if esc else 1)
    rebuilt = batch.masked_kspace[1, 0] * batch.scale[1]
    torch.testing.assert_close(rebuilt, torch.from_numpy(kspace[1]) * batch.mask[1])
    with h5py.File(single) as file:
        assert target_name(file) == ("reconstruction_esc" if esc else "reconstruction_rss")


def test_split_folder_prefers_multicoil_and_names_it_where_neither_is(tmp_path):
    assert split_folder(tmp_path, "val").name == "multicoil_val"
    (tmp_path / "singlecoil_val").mkdir()
    assert split_folder(tmp_path, "val").name == "singlecoil_val"
    (tmp_path / "multicoil_val").mkdir()
    assert split_folder(tmp_path, "val").name == "multicoil_val"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda k: k[:, 0], r"got \(2, 64, 48\) in .*folder singlecoil_<split>, or need a coil"),
        (lambda k: np.moveaxis(k, 1, -1), r"got \(2, 64, 48, 4\) .* the coils are last"),
        (lambda k: np.moveaxis(k, 1, 0), r"got \(4, 2, 64, 48\) .* the coils are first"),
        (lambda k: k.swapaxes(-1, -2), r"got \(2, 4, 48, 64\) .* readout are swapped"),
        (lambda k: np.stack([k.real, k.imag], -1), r"kspace\[\.\.\., 0\] \+ 1j \* kspace"),
        (lambda k: k.real, "complex64, got float32"),
        (lambda k: (100 * k.real).astype(int), "complex64, got int64"),
        (lambda k: k.real.astype("f2"), "complex64, got float16"),
        (lambda k: np.full(3, b"text"), r"complex64, got \|S4"),
        (lambda k: np.array(["a", "b"], dtype=object), "complex64, got object"),
        (lambda k: np.complex64(1), r"got \(\) in"),
        (lambda k: k[:0], r"got \(0, 4, 64, 48\)"),
        (lambda k: h5py.Empty("c8"), "kspace must hold values"),
        (lambda k: 1e300 * k.astype(np.complex128), "kspace must be finite"),
    ],
)
def test_other_kspace_is_refused(path, change, words):
    kspace = kspace_of(path)
    put(path, kspace=None, reconstruction_rss=None)
    put(path, kspace=change(kspace))
    refused(path, words)


@pytest.mark.parametrize("names", [("real", "imag"), ("r", "i"), ("Re", "Im")])
@pytest.mark.parametrize("kind", ["<f4", "<f8", ">f4", "<f2", "<i2"])
def test_pairs_of_numbers_are_read_as_complex(path, names, kind):
    kspace = 50 * kspace_of(path)
    pairs = np.zeros(kspace.shape, np.dtype([(name, kind) for name in names]))
    pairs[names[0]], pairs[names[1]] = kspace.real, kspace.imag
    put(path, kspace=pairs)
    got, *_ = read_slice(inspect_volume(path), 1)
    expected = pairs[names[0]][1].astype("f4") + 1j * pairs[names[1]][1].astype("f4")
    np.testing.assert_array_equal(got.numpy(), expected)


def test_complex128_is_read(path):
    kspace = kspace_of(path)
    put(path, kspace=kspace.astype(np.complex128))
    assert torch.equal(read_slice(inspect_volume(path), 0)[0], torch.from_numpy(kspace[0]))


def test_groups_in_place_of_datasets_are_refused(path):
    put(path, kspace=None)
    with h5py.File(path, "a") as file:
        file.create_group("kspace")
    refused(path, "kspace must be a dataset, got a group")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (np.ones((2, 32, 32), np.complex64), "must hold real numbers, got complex64"),
        (np.full((2, 32, 32), b"x"), r"must hold real numbers, got \|S1"),
        (np.full((2, 32, 32), 1e300), "must be finite as float32"),
        (np.ones((32, 32), np.float32), r"\(slice, Y, X\) within"),
        (np.ones((2, 65, 32), np.float32), r"\(slice, Y, X\) within"),
        (np.ones((2, 0, 32), np.float32), r"\(slice, Y, X\) within"),
    ],
)
def test_other_targets_are_refused(path, target, words):
    put(path, reconstruction_rss=target)
    refused(path, f"reconstruction_rss.*{words}")


SAMPLED = np.isin(np.arange(48), [5, 9, *range(18, 30), 40])


def sampled_file(path, mask):
    kspace = kspace_of(path)
    put(path, kspace=kspace * SAMPLED, mask=mask, reconstruction_rss=None)
    return path


@pytest.mark.parametrize(
    "mask",
    [
        SAMPLED,
        SAMPLED.astype(np.int8),
        SAMPLED.astype(np.float64),
        np.broadcast_to(SAMPLED, (64, 48)).astype("f4"),
        np.broadcast_to(SAMPLED, (2, 48)),
        SAMPLED[None],
        SAMPLED[None, None, :, None].astype("f4"),
    ],
)
def test_mask_of_a_file_is_read_in_every_shape_that_repeats_itself(path, mask):
    batch = batch_of(sampled_file(path, mask), FileMask())
    assert (batch.mask.numpy() == SAMPLED).all()


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.arange(63)[:, None] + np.arange(48) < 50, r"\(y, x\) = \(64, 48\), got \(63, 48\)"),
        (np.where(SAMPLED, np.nan, 0), "NaN"),
        (np.ones(47), r"\(x,\) = \(48,\) or \(y, x\), got \(47,\)"),
        (np.ones(()), r"got \(1,\)"),
        (np.full(48, b"1"), r"one number for each phase-encode column, got \|S1"),
        (np.zeros(0), r"got float64 \(0,\)"),
        (np.zeros(48), "got zeros in every sampled column"),
    ],
)
def test_mask_of_a_file_that_says_nothing_clear_is_refused(path, mask, words):
    refused(sampled_file(path, mask), words, FileMask())


def test_columns_that_a_mask_names_but_hold_nothing_are_no_measurements(path):
    wide = SAMPLED.copy()
    wide[[12, 13]] = True
    with pytest.warns(UserWarning, match="2 of the 17 columns of its mask hold only zeros"):
        batch = batch_of(sampled_file(path, wide), FileMask())
    assert (batch.mask.numpy() == SAMPLED).all()
    assert batch.info[0].acceleration == pytest.approx(44 / 15)


def test_endings_in_any_case_count_and_stems_must_differ(tmp_path, make_file):
    folder = tmp_path / "multicoil_val"
    for name in ("a.h5", "b.hdf5", "c.H5", "d.HDF5"):
        make_file(folder / name)
    (folder / "._e.h5").write_bytes(b"resource fork")
    assert [v.file for v in find_volumes(tmp_path, "val")[0]] == [
        "a.h5",
        "b.hdf5",
        "c.H5",
        "d.HDF5",
    ]
    make_file(folder / "a.hdf5")
    with pytest.raises(InputError, match=r"got a\.h5 and a\.hdf5 in .*; rename"):
        find_volumes(tmp_path, "val")
    volumes, failed = find_volumes(tmp_path, "val", "skip")
    assert (len(volumes), [scan.file for scan in failed]) == (4, ["a.hdf5"])


@pytest.mark.timeout(20)
def test_what_is_no_file_never_hangs(tmp_path, path):
    folder = path.parent
    os.mkfifo(folder / "fifo.h5")
    (folder / "folder.h5").mkdir()
    (folder / "device.h5").symlink_to("/dev/zero")
    (folder / "nowhere.h5").symlink_to("missing")
    (folder / "link.h5").symlink_to(path)
    short = os.path.relpath(folder / "s.h5")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(short)
        volumes, failed = find_volumes(tmp_path, "val", "skip")
    assert [v.file for v in volumes] == ["a.h5", "link.h5"]
    names = {"fifo.h5", "folder.h5", "device.h5", "nowhere.h5", "s.h5"}
    assert {scan.file for scan in failed} == names
    assert all("must be a regular file" in scan.message for scan in failed)


@pytest.mark.parametrize("name", ["kspace", "reconstruction_rss", "mask", "ismrmrd_header"])
@pytest.mark.timeout(20)
def test_links_to_other_files_are_refused_before_they_are_followed(tmp_path, path, name):
    os.mkfifo(tmp_path / "fifo")
    put(path, **{name: None})
    with h5py.File(path, "a") as file:
        file[name] = h5py.ExternalLink(str(tmp_path / "fifo"), "x")
    refused(path, f"'{name}' must lie in .* link to somewhere else")
    put(path, **{name: None})
    with h5py.File(path, "a") as file:
        file["way"] = h5py.ExternalLink(str(tmp_path / "fifo"), "/")
        file[name] = h5py.SoftLink("/way/x")
    refused(path, "link to somewhere else")


def test_soft_links_within_a_file_are_followed(path):
    kspace = kspace_of(path)
    put(path, kspace=None)
    with h5py.File(path, "a") as file:
        file["raw/data"] = kspace
        file["raw/again"] = h5py.SoftLink("./data")
        file["kspace"] = h5py.SoftLink("raw/again")
    assert torch.equal(read_slice(inspect_volume(path), 1)[0], torch.from_numpy(kspace[1]))
    put(path, kspace=None)
    with h5py.File(path, "a") as file:
        file["kspace"] = h5py.SoftLink("/kspace")
    refused(path, "must lie in|must hold a dataset")


def test_external_storage_is_refused(tmp_path, path):
    (tmp_path / "secret").write_bytes(bytes(8 * 2 * 4 * 64 * 48))
    put(path, kspace=None)
    with h5py.File(path, "a") as file:
        where = [(str(tmp_path / "secret"), 0, 8 * 2 * 4 * 64 * 48)]
        file.create_dataset("kspace", SHAPE, np.complex64, external=where)
    refused(path, "its values are stored in .*secret")


def virtual(path, source, name="kspace"):
    put(path, kspace=None)
    layout = h5py.VirtualLayout(SHAPE, np.complex64)
    layout[:] = h5py.VirtualSource(source, name, shape=SHAPE)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("kspace", layout)


def test_virtual_kspace_may_come_from_the_data_root_only(tmp_path, path, make_file):
    inside = make_file(tmp_path / "parts" / "p.h5", seed=3)
    virtual(path, "../parts/p.h5")
    assert torch.equal(
        read_slice(inspect_volume(path), 1)[0], torch.from_numpy(kspace_of(inside)[1])
    )
    outside = make_file(tmp_path.parent / f"{tmp_path.name}_outside" / "p.h5")
    for source in (str(outside), f"../../{outside.parent.name}/p.h5"):
        virtual(path, source)
        refused(path, "lies outside")
    virtual(path, "../parts/missing.h5")
    with pytest.raises(InputError, match=r"missing\.h5 must be a regular file, got none"):
        inspect_volume(path)
    virtual(path, "../parts/p.h5", "other")
    refused(path, "has no other")
    put(inside, kspace=None)
    with h5py.File(inside, "a") as file:
        file["kspace"] = h5py.ExternalLink(str(outside), "kspace")
    virtual(path, "../parts/p.h5")
    with pytest.raises(InputError, match="link to somewhere else"):
        inspect_volume(path)


@pytest.mark.parametrize(
    "shape", [(1, 10**4, 10**4, 10**4), (10**6, 100, 100, 100), (10**12, 1, 1, 1)]
)
def test_huge_declared_shapes_are_refused(path, shape):
    put(path, kspace=None, reconstruction_rss=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("kspace", shape, np.complex64, chunks=(1, 1, 1, 1))
    assert path.stat().st_size < 10**6
    refused(path, f"at most {contents.MAX_SLICES} slices of {contents.MAX_SLICE_ENTRIES} entries")


def test_huge_mask_and_header_are_refused(path):
    with h5py.File(path, "a") as file:
        file.create_dataset("mask", (10**8, 48), "f4", chunks=(1, 48))
    refused(path, "mask may have at most")
    put(path, mask=None, ismrmrd_header=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("ismrmrd_header", (), "S100000000")
    refused(path, "ismrmrd_header of .* must be text")


@pytest.mark.parametrize("value", [b"A\nB\xff", "A\nB", np.array([1, 2]), 7, h5py.Empty("S1")])
def test_odd_attributes_become_one_line_of_text(path, value):
    with h5py.File(path, "a") as file:
        for name in ("acquisition", "patient_id"):
            file.attrs[name] = value
    volume = inspect_volume(path)
    for text in (volume.acquisition, volume.subject):
        assert text
        assert "\n" not in text
        text.encode()


def test_content_tells_scans_apart_by_subject_header_and_kspace(path, make_file):
    content = inspect_volume(path).content
    copy = path.with_name("copy.h5")
    copy.write_bytes(path.read_bytes())
    assert inspect_volume(copy).content == content
    assert len(content.header) == len(content.kspace) == 64
    other = inspect_volume(make_file(path.with_name("other.h5"), seed=1)).content
    assert other.kspace != content.kspace
    assert other.header == content.header
    put(copy, ismrmrd_header=HEADER + " ")
    assert inspect_volume(copy).content.header != content.header
    put(copy, ismrmrd_header=None)
    with pytest.warns(UserWarning, match="no ismrmrd_header"):
        bare = inspect_volume(copy)
    assert (bare.content.header, bare.content.kspace) == ("", content.kspace)
    put(copy, kspace=kspace_of(copy).astype(np.complex128))
    volume = inspect_volume(path)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.h5 must be a regular file"):
        _ = volume.content


@pytest.mark.parametrize("factor", [2.0**-66, 2.0**66, 1e-20, 1e20])
def test_unit_of_the_file_changes_no_batch(path, factor):
    expected = batch_of(path)
    kspace = kspace_of(path)
    with h5py.File(path) as file:
        target = file["reconstruction_rss"][()]
    put(
        path,
        kspace=kspace * np.complex64(factor),
        reconstruction_rss=target * np.float32(factor),
    )
    batch = batch_of(path)
    exact = factor in (2.0**-66, 2.0**66)
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 0, "atol": 1e-3}
    for name in ("masked_kspace", "sensitivity_maps", "coarse_maps"):
        torch.testing.assert_close(getattr(batch, name), getattr(expected, name), **tolerance)
    torch.testing.assert_close(batch.scale / factor, expected.scale, rtol=1e-5, atol=0)
    torch.testing.assert_close(batch.target / factor, expected.target, rtol=1e-5, atol=0)


def test_image_that_exceeds_float32_is_refused(path):
    kspace = np.zeros(SHAPE, np.complex64)
    kspace[..., 20:28, 20:28] = 3e38
    put(path, kspace=kspace, reconstruction_rss=None)
    with pytest.warns(UserWarning, match="only 20 to 28 hold data"):
        refused(path, "range of float32", GaussianMask(1, calibration_lines=8))


@pytest.mark.timeout(20)
def test_text_on_whose_heap_hdf5_spins_is_refused(path):
    put(path, ismrmrd_header=HEADER)  # of variable length: it lies in a heap
    assert inspect_volume(path).padding == PADDING
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    size = int.from_bytes(data[heap + 8 : heap + 16], "little")
    place = heap + 16
    while data[place : place + 2] != b"\0\0":  # to the free space at the end of the heap
        length = int.from_bytes(data[place + 8 : place + 16], "little")
        place += 16 + -(-length // 8) * 8
    assert place + 16 <= heap + size
    data[place + 8 : place + 16] = bytes(8)
    path.write_bytes(data)
    refused(path, "the heap at byte .* has no end")
