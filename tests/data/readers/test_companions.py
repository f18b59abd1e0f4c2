"""Masks of points, a mask's own file, and sensitivity maps that are given."""

import shutil

import h5py
import numpy as np
import pytest
import torch

from mrisem.baselines.classical import CGSense
from mrisem.baselines.grappa import Grappa
from mrisem.data.dataset import SliceGroups
from mrisem.data.slices import central_slices
from mrisem.data.volumes import inspect_volume
from mrisem.errors import InputError
from mrisem.physics.masks import FileMask, calibration_square


@pytest.fixture
def scan(simulated, tmp_path):
    folder = tmp_path / "multicoil_val"
    folder.mkdir()
    path = folder / "file_brain_AXT2_5000.h5"
    shutil.copy(simulated / "brain" / "multicoil_val" / path.name, path)
    return path


def points_of(shape, seed=0):
    """Every second point at random, and the central 24 x 24."""
    points = np.random.default_rng(seed).random(shape) < 0.5
    top, left = shape[0] // 2 - 12, shape[1] // 2 - 12
    points[top : top + 24, left : left + 24] = True
    return points


def batch_of(path, mask, **options):
    volume = inspect_volume(path)
    return SliceGroups(central_slices([volume], 1), mask, readout="target", **options)[0]


@pytest.fixture
def points(scan, tmp_path):
    with h5py.File(scan) as file:
        made = points_of(file["kspace"].shape[-2:])
    np.save(tmp_path / "mask.npy", made)
    return made


@pytest.mark.filterwarnings("ignore:.*hold only zeros:UserWarning")
def test_companions_points_of_a_file_are_the_samples(scan, points, tmp_path):
    batch = batch_of(scan, FileMask(str(tmp_path / "mask.npy")))
    with h5py.File(scan, "r+") as file:
        middle = file["kspace"][(len(file["kspace"]) - 1) // 2]
        file["mask"] = points
    sampled = points & (middle != 0).any(0)
    assert (batch.mask[0].numpy() == sampled).all()
    read = (batch.masked_kspace * batch.scale)[0].numpy()
    assert np.abs(read - middle * sampled).max() < 1e-6 * np.abs(middle).max()
    assert batch.info[0].acceleration == pytest.approx(
        (middle != 0).any((0, 1)).sum() * len(sampled) / sampled.sum()
    )
    stored = batch_of(scan, FileMask())
    assert stored.masked_kspace.equal(batch.masked_kspace)


@pytest.mark.filterwarnings("ignore:.*hold only zeros:UserWarning")
def test_companions_points_reconstruct_but_not_by_grappa(scan, points, tmp_path):
    batch = batch_of(scan, FileMask(str(tmp_path / "mask.npy")))
    y, x = batch.crop
    image = (CGSense()(batch).image * batch.scale).abs()
    top, left = image.shape[1] // 2 - y // 2, image.shape[2] // 2 - x // 2
    image = image[:, top : top + y, left : left + x]
    assert float((image - batch.target).norm() / batch.target.norm()) < 0.25
    with pytest.raises(InputError, match="grappa must have a mask of whole"):
        Grappa()(batch)


@pytest.mark.filterwarnings("ignore:.*hold only zeros:UserWarning")
@pytest.mark.parametrize(
    ("model", "code"),
    [("tv", 0), ("l1_wavelet", 0), ("unrolled", 0), ("unet", 0), ("inr", 0), ("grappa", 1),
     ("varnet", 1)],
)  # fmt: skip
def test_companions_points_by_each_method(mrisem, scan, points, tmp_path, model, code):
    run = ["data=brain", f"data.root={tmp_path}", f"model={model}", "scale=smoke"]
    run += ["mask=from_file", f"mask.path={tmp_path / 'mask.npy'}", "data.max_slices=1"]
    ended, _, err = mrisem("reconstruct", *run, f"output_dir={tmp_path / 'run'}")
    assert ended == code, err
    if code:
        assert "whole phase-encode columns" in err.splitlines()[-1]


def test_companions_a_mask_of_whole_columns_is_the_same_as_before(scan, tmp_path):
    with h5py.File(scan) as file:
        columns = (file["kspace"][:] != 0).any((0, 1, 2))
        shape = file["kspace"].shape[-2:]
    columns[::4] = False
    columns[shape[1] // 2 - 12 : shape[1] // 2 + 12] = True
    np.savez(tmp_path / "mask.npz", mask=columns)
    by_path = batch_of(scan, FileMask(str(tmp_path / "mask.npz")))
    with h5py.File(scan, "r+") as file:
        file["mask"] = np.broadcast_to(columns, shape)
    assert by_path.masked_kspace.equal(batch_of(scan, FileMask()).masked_kspace)


def test_companions_square_of_columns_and_points():
    points = torch.zeros(8, 10, dtype=torch.bool)
    points[2:6, 3:7] = True
    assert calibration_square(points) == 4
    assert calibration_square(points.any(0)) == 4


@pytest.mark.filterwarnings("ignore:.*hold only zeros:UserWarning")
@pytest.mark.parametrize("where", ["in_file", "h5", "npy"])
def test_companions_given_maps_are_taken(scan, tmp_path, where):
    with h5py.File(scan, "r+") as file:
        shape = file["kspace"].shape
        rng = np.random.default_rng(0)
        maps = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
        if where == "in_file":
            file["sensitivity_maps"] = maps
    choice = where
    if where == "npy":
        choice = str(tmp_path / "maps.npy")
        np.save(choice, maps)
    if where == "h5":
        (tmp_path / "maps").mkdir()
        choice = str(tmp_path / "maps")
        with h5py.File(tmp_path / "maps" / scan.name, "w") as file:
            file["sensitivity_maps"] = maps
    batch = batch_of(scan, FileMask(_all(tmp_path, shape)), sensitivity_maps=choice)
    chosen = maps[(shape[0] - 1) // 2]
    chosen = chosen / np.sqrt((np.abs(chosen) ** 2).sum(0))
    n = batch.sensitivity_maps.shape[2]
    top = shape[2] // 2 - n // 2
    assert np.allclose(batch.sensitivity_maps[0].numpy(), chosen[:, top : top + n], atol=1e-6)


def _all(folder, shape):
    np.save(folder / "all.npy", np.ones(shape[-1], bool))
    return str(folder / "all.npy")


@pytest.mark.filterwarnings("ignore:.*hold only zeros:UserWarning")
def test_companions_maps_of_another_shape_are_refused(scan, tmp_path):
    np.save(tmp_path / "maps.npy", np.ones((1, 2, 3, 4), np.complex64))
    with h5py.File(scan) as file:
        everything = _all(tmp_path, file["kspace"].shape)
    with pytest.raises(InputError, match="sensitivity_maps must be complex"):
        batch_of(scan, FileMask(everything), sensitivity_maps=str(tmp_path / "maps.npy"))
    with pytest.raises(InputError, match="must hold a dataset 'sensitivity_maps'"):
        batch_of(scan, FileMask(everything), sensitivity_maps="in_file")
