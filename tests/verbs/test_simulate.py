from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fastmri import ifft2c, rss_complex, tensor_to_complex_np
from fastmri.data import SliceDataset
from fastmri.data.transforms import center_crop, to_tensor
from omegaconf import DictConfig

from mrisem.config.compose import compose
from mrisem.errors import InputError
from mrisem.verbs.simulate import encoded_shape, run


def configured(output_dir: Path, *overrides: str) -> DictConfig:
    """Compose and check, as the command line does."""
    return compose("simulate", ["scale=smoke", f"output_dir={output_dir}", *overrides])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("simulated")
    assert run(configured(path)) == 0
    return path


def every(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.h5"))


def test_simulate_writes_every_contrast_of_every_subject(folder):
    names = {str(p.relative_to(folder).parent) for p in every(folder)}
    splits = ("multicoil_train", "multicoil_val")
    assert names == {f"{a}/{s}" for a in ("brain", "knee") for s in splits}
    assert len(every(folder / "brain" / "multicoil_train")) == 6
    assert len(every(folder / "knee" / "multicoil_val")) == 2
    assert not [p for p in folder.rglob("*") if "partial" in p.name]


@pytest.mark.parametrize("anatomy", ["brain", "knee"])
def test_simulate_fastmri_reads_files_and_finds_the_target(folder, anatomy):
    dataset = SliceDataset(folder / anatomy / "multicoil_val", "multicoil")
    for kspace, mask, target, attributes, _, _ in dataset:
        images = ifft2c(to_tensor(kspace))
        rss = rss_complex(images).numpy()
        size = attributes["recon_size"][:2]
        wanted = center_crop(torch.from_numpy(rss), size).numpy()
        np.testing.assert_allclose(target, wanted, atol=1e-5 * target.max())
        assert mask is None
        assert attributes["encoding_size"][:2] == encoded_shape(96) == kspace.shape[-2:]
        assert tensor_to_complex_np(images).shape == kspace.shape


def test_simulate_columns_outside_the_header_are_zero(folder):
    margins = set()
    for anatomy in ("brain", "knee"):
        for kspace, _, _, facts, _, _ in SliceDataset(
            folder / anatomy / "multicoil_train", "multicoil"
        ):
            left, right = facts["padding_left"], facts["padding_right"]
            acquired = np.flatnonzero(np.abs(kspace).sum((0, 1)))
            assert (acquired[0], acquired[-1] + 1) == (left, right)
            margins.add(left)
            assert right - left >= 96, "24 calibration lines at R = 4 need 96"
    assert len(margins) > 1


def test_simulate_subjects_of_train_and_val_are_disjoint(folder):
    def patients(split):
        found = set()
        for path in every(folder):
            if path.parent.name == split:
                with h5py.File(path) as file:
                    found.add(file.attrs["patient_id"])
        return found

    train, val = patients("multicoil_train"), patients("multicoil_val")
    assert len(train) == 4
    assert len(val) == 2
    assert not train & val


def test_simulate_marks_lesions_and_gives_them_to_whom_it_is_told(folder, tmp_path):
    wanted = ("anatomies=[brain]", "lesions.train=none", "lesions.val=all", "n_slices=5")
    run(configured(tmp_path, *wanted))
    for path in every(tmp_path):
        with h5py.File(path) as file:
            labels, target = file["lesions"][()], file["reconstruction_rss"]
            assert labels.dtype == np.uint8
            assert labels.shape == target.shape
            assert labels.any() == (path.parent.name == "multicoil_val")
            assert file.attrs["simulation"].split()[-1] in ("lesions=all", "lesions=none")
    with pytest.raises(InputError, match="skip_existing=false"):
        run(configured(tmp_path, *wanted, "lesions.val=some"))
    with h5py.File(every(folder)[0]) as file:  # as it was before there was a choice
        assert "lesions=" not in file.attrs["simulation"]


def test_simulate_lesions_lie_where_the_target_shows_them(tmp_path):
    few = ("anatomies=[brain]", "n_train=0", "n_val=1", "n_slices=5", "snr_factor=10")
    for which in ("none", "all"):
        run(configured(tmp_path / which, *few, f"lesions.val={which}"))
    name = next(path for path in every(tmp_path / "all") if "AXFLAIR" in path.name)
    with (
        h5py.File(name) as a,
        h5py.File(tmp_path / "none" / name.relative_to(tmp_path / "all")) as b,
    ):
        marked = a["lesions"][()] > 0
        change = np.abs(a["reconstruction_rss"][()] - b["reconstruction_rss"][()])
    assert change[marked].mean() > 10 * change[~marked].mean()


def test_simulate_is_decided_by_the_seed(folder, tmp_path):
    run(configured(tmp_path / "same", "anatomies=[knee]"))
    run(configured(tmp_path / "other", "anatomies=[knee]", "seed=1"))
    for path in every(tmp_path / "same"):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path / "same")).read_bytes()
    for path in every(tmp_path / "other"):
        twin = folder / path.relative_to(tmp_path / "other")
        with h5py.File(path) as a, h5py.File(twin) as b:
            assert not np.allclose(a["reconstruction_rss"], b["reconstruction_rss"], rtol=0.1)


def test_simulate_keeps_existing_files_and_rejects_those_made_otherwise(tmp_path):
    run(configured(tmp_path, "anatomies=[knee]"))
    times = [p.stat().st_mtime_ns for p in every(tmp_path)]
    run(configured(tmp_path, "anatomies=[knee]"))
    assert times == [p.stat().st_mtime_ns for p in every(tmp_path)]
    with pytest.raises(InputError, match="skip_existing=false"):
        run(configured(tmp_path, "anatomies=[knee]", "seed=1"))


@pytest.mark.parametrize(
    "override",
    [
        "anatomies=[heart]",
        "anatomies=[]",
        "size=97",
        "n_slices=0",
        "n_train=5001",
        "lesions.val=few",
        "lesions.val=all",
    ],
)
def test_simulate_bad_configuration_is_an_input_error(tmp_path, override):
    with pytest.raises(InputError):
        run(configured(tmp_path, override))
    assert list(tmp_path.iterdir()) == []


def test_simulate_more_than_the_disk_holds_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="GB of free disk"):
        run(configured(tmp_path, "anatomies=[knee]", "n_slices=100000000"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n_coils", [1, 3])
def test_simulate_few_coils(tmp_path, n_coils):
    few = ("anatomies=[knee]", f"n_coils={n_coils}", "n_train=1", "n_val=0", "n_slices=1")
    assert run(configured(tmp_path, *few)) == 0
    kspace = SliceDataset(tmp_path / "knee" / "multicoil_train", "multicoil")[0][0]
    assert kspace.shape[0] == n_coils


def test_simulate_neither_replaces_nor_removes_a_file_of_somebody_else(mrisem, tmp_path):
    arguments = ["simulate", "anatomies=[brain]", "scale=smoke", f"output_dir={tmp_path}"]
    path = tmp_path / "brain" / "multicoil_val" / "file_brain_AXT2_5000.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["mine"] = 1
    for choice in ("true", "false"):
        code, _, err = mrisem(*arguments, f"skip_existing={choice}")
        assert code == 1
        assert "which mrisem did not simulate" in err
    with h5py.File(path) as file:
        assert list(file) == ["mine"]
