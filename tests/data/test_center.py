"""Where the centre of k-space lies: found in the corner, never in what is centred."""

import re

import h5py
import numpy as np
import pytest
import torch

from mrisem.data.anatomies import FastMRIBrain
from mrisem.data.dataset import SliceGroups, central_slices
from mrisem.data.slices import _CORNER_RATIO, corner_ratio, read_slice
from mrisem.data.volumes import inspect_volume
from mrisem.errors import InputError
from mrisem.physics.masks import GaussianMask

SHIFTS = (-0.3, -0.15, 0, 0.15, 0.3)


def to_corner(kspace):
    return np.ascontiguousarray(np.fft.ifftshift(kspace, axes=(-2, -1)))


def every_slice(folder):
    for path in sorted(folder.rglob("*.h5")):
        with h5py.File(path) as file:
            yield from file["kspace"][()]


def check(kspace):
    height, width = kspace.shape[-2:]
    lines = np.zeros(width, dtype=bool)
    lines[::8] = True
    sparse = kspace * lines
    lines[width // 2 - 8 : width // 2 + 8] = True
    spike = kspace.copy()
    spike[0, 0, 0] = 1e3 * np.abs(kspace).max()
    centred = [np.roll(kspace, int(q * height), axis=-2) for q in SHIFTS]
    centred += [np.roll(kspace, int(q * width), axis=-1) for q in (-0.1, 0.1)]
    for case in (*centred, spike, sparse, kspace * lines):
        assert corner_ratio(case) < _CORNER_RATIO / 3
    for case in (kspace, kspace * lines):
        assert corner_ratio(to_corner(case)) > 2 * _CORNER_RATIO


def test_measured_scans_are_told_apart_however_the_echo_lies(real_data):
    for kspace in every_slice(real_data):
        check(kspace)


def test_simulated_scans_are_told_apart_however_the_echo_lies(simulated):
    n = 0
    for kspace in every_slice(simulated):
        check(kspace)
        n += 1
    assert n > 10


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 64, 24), (4, 40, 200)])
def test_noise_has_no_centre_and_is_not_refused(shape):
    rng = np.random.default_rng(0)
    for _ in range(50):
        noise = rng.standard_normal((*shape, 2)).astype(np.float32).view(np.complex64)[..., 0]
        assert corner_ratio(noise) < _CORNER_RATIO


@pytest.fixture
def corner_file(tmp_path, make_file):
    """One file as it should be, and the same in the other convention."""
    path = make_file(tmp_path / "a" / "multicoil_val" / "a.h5", shape=(2, 4, 96, 64))
    twin = tmp_path / "b" / "multicoil_val" / "a.h5"
    twin.parent.mkdir(parents=True)
    twin.write_bytes(path.read_bytes())
    with h5py.File(twin, "a") as file:
        file["kspace"][...] = to_corner(file["kspace"][()])
    return path, twin


def test_corner_is_refused_with_the_override_that_mends_it(corner_file):
    path, twin = corner_file
    with pytest.raises(InputError, match=r"a\.h5, slice 0; set data\.kspace_center=corner$"):
        read_slice(inspect_volume(twin), 0)
    with pytest.raises(InputError, match=r"set data\.kspace_center=middle$"):
        read_slice(inspect_volume(path, "corner"), 0)


def test_corner_is_read_like_the_middle(corner_file):
    mask = GaussianMask(4, calibration_lines=8)
    volumes = (inspect_volume(corner_file[0]), inspect_volume(corner_file[1], "corner"))
    batches = [SliceGroups(central_slices([volume], None), mask)[0] for volume in volumes]
    assert torch.equal(batches[0].masked_kspace, batches[1].masked_kspace)
    assert torch.equal(batches[0].sensitivity_maps, batches[1].sensitivity_maps)


def test_corner_reaches_every_part_of_the_data_module(corner_file, make_file):
    root = corner_file[1].parents[1]
    path = make_file(root / "multicoil_train" / "t.h5", shape=(1, 4, 96, 64), subject="t")
    with h5py.File(path, "a") as file:
        file["kspace"][...] = to_corner(file["kspace"][()])
    mask = GaussianMask(4, calibration_lines=8)
    data = FastMRIBrain(root, mask, kspace_center="corner", auxiliary={"n_subjects": 1})
    assert len(list(data.predict_dataloader())) == 1
    ((target, negative, _),) = data.auxiliary_slices("AXT2")
    assert float((target - negative).norm() / target.norm()) < 0.5  # the same image, aliased
    with pytest.raises(InputError, match=re.escape("('middle', 'corner')")):
        FastMRIBrain(root, mask, kspace_center="centre")


@pytest.mark.filterwarnings("ignore:a.h5 has no ismrmrd_header")
def test_padding_is_derived_after_the_centre_was_moved(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5", shape=(2, 4, 96, 64), padding=(5, 60), header=False)
    with h5py.File(path, "a") as file:
        file["kspace"][...] = to_corner(file["kspace"][()])
    assert inspect_volume(path, "corner").padding == (5, 60)
