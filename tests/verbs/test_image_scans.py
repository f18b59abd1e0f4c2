"""`mrisem simulate source=...`: scans of images in the fastMRI format."""

import h5py
import numpy as np
import pytest
import torch
from fastmri.data import SliceDataset

from mrisem.config.compose import compose
from mrisem.data.cuts import cut_slice
from mrisem.data.images import find_images, load
from mrisem.errors import InputError
from mrisem.physics.fourier import ifft2c
from mrisem.verbs.scans import encoded_shape
from mrisem.verbs.simulate import run


@pytest.fixture
def source(tmp_path, write_nifti, write_series):
    write_nifti(tmp_path / "images" / "deeper" / "head.nii.gz")
    write_series(tmp_path / "images" / "knee")
    return tmp_path / "images"


def simulate(source, folder, *words):
    config = compose(
        "simulate", ["scale=smoke", f"source={source}", f"output_dir={folder}", *words]
    )
    assert run(config) == 0
    return sorted(folder.rglob("*.h5"))


def test_scans_of_images_show_the_images_and_say_where_they_come_from(source, tmp_path):
    words = ("snr_factor=inf", "n_slices=3", "n_coils=8")
    paths = simulate(source, tmp_path / "out", *words)
    assert [path.parent.relative_to(tmp_path / "out").as_posix() for path in paths] == [
        "brain/multicoil_val"
    ] * 2
    images = {image.label: image for image in find_images(source)}
    planes = {}
    for path in paths:
        image = images[path.stem.removeprefix("file_brain_AXT1_")]
        plane = planes[image.paths[0].suffix] = "sagittal" if "series3" in path.name else "axial"
        with h5py.File(path) as file:
            target, said = file["reconstruction_rss"][()], file.attrs["simulation"]
            assert file.attrs["patient_id"] == image.subject
            assert file["kspace"].shape == (3, 8, *encoded_shape(96))
            assert file["kspace"].dtype == np.complex64
            header = file["ismrmrd_header"][()].decode()
            phase = ifft2c(torch.from_numpy(file["kspace"][1])).angle()[0]
        assert said.startswith(f"simulated from images: {image.source} content={image.digest[:12]}")
        voxels = load(image)
        middle = voxels.values.shape[{"axial": 2, "sagittal": 0}[plane]] // 2
        expected, edge = cut_slice(voxels, plane, middle, 96)
        assert "<reconSpace>\n      <matrixSize><x>96</x><y>96</y>" in header
        assert f"<fieldOfView_mm><x>{96 * edge:.2f}</x><y>{96 * edge:.2f}</y>" in header
        # coils weight the object evenly but for a smooth factor
        ratio = target[1] / expected
        object_ = expected > 0.2 * expected.max()
        assert np.corrcoef(target[1][object_], expected[object_])[0, 1] > 0.9
        assert ratio[object_].std() / ratio[object_].mean() < 0.3
        assert phase.std() > 0.05
    assert planes == {".gz": "axial", ".dcm": "sagittal"}


def test_fastmri_reads_scans_of_images(source, tmp_path):
    simulate(source, tmp_path)
    slices = [*SliceDataset(tmp_path / "brain" / "multicoil_val", "multicoil")]
    assert len(slices) == 4
    for kspace, _, target, facts, _, _ in slices:
        assert target.shape == facts["recon_size"][:2] == (96, 96)
        left, right = facts["padding_left"], facts["padding_right"]
        acquired = np.flatnonzero(np.abs(kspace).sum((0, 1)))
        assert (acquired[0], acquired[-1] + 1) == (left, right)


def test_noise_is_as_strong_as_said(source, tmp_path):
    quiet, noisy = (
        simulate(source, tmp_path / name, f"snr_factor={factor}")[0]
        for name, factor in {"quiet": "inf", "noisy": 0.5}.items()
    )
    with h5py.File(quiet) as a, h5py.File(noisy) as b:
        noise, target = b["kspace"][()] - a["kspace"][()], a["reconstruction_rss"][()]
    acquired = noise[..., np.abs(noise).sum((0, 1, 2)) > 0]
    signal = target[target > 0.05 * target.max()].mean()
    assert signal / acquired.real.std() == pytest.approx(60 * 0.5, rel=0.1)  # AXT1


def test_subjects_anatomy_acquisition_and_plane_are_chosen(source, tmp_path):
    words = ("source_anatomy=knee", "source_acquisition=CORPDFS_FBK", "source_train=1")
    paths = simulate(source, tmp_path / "out", *words, "source_plane=coronal")
    names = {path.parent.relative_to(tmp_path / "out").as_posix(): path.name for path in paths}
    assert names.keys() == {"knee/multicoil_train", "knee/multicoil_val"}
    assert "head" in names["knee/multicoil_train"]  # the first by path
    with h5py.File(paths[0]) as file:
        assert file.attrs["acquisition"] == "CORPDFS_FBK"
        assert "source_plane=coronal" in file.attrs["simulation"]


def test_one_file_is_a_source_and_the_same_command_keeps_its_scan(source, tmp_path, capsys):
    head = source / "deeper" / "head.nii.gz"
    (path,) = simulate(head, tmp_path / "out")
    before = path.stat().st_mtime_ns, path.read_bytes()
    assert simulate(head, tmp_path / "out") == [path]
    assert "0 files written, 1 kept" in capsys.readouterr().out
    assert before[0] == path.stat().st_mtime_ns
    (again,) = simulate(head, tmp_path / "again")
    assert again.read_bytes() == before[1]
    with pytest.raises(InputError, match="skip_existing=false"):
        simulate(head, tmp_path / "out", "source_center=0.4")
    simulate(head, tmp_path / "out", "source_center=0.4", "skip_existing=false")
    assert path.read_bytes() != before[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("lesions.train=none", "lesions is an option of simulated subjects"),
        ("anatomies=[brain]", "anatomies is an option of simulated subjects"),
        ("n_train=1", "n_train is an option of simulated subjects"),
        ("scale.simulate.n_val=1", "n_val is an option of simulated subjects"),
        ("source_acquisition=CORPD_FBK", "source_acquisition must be one of AXT1"),
        ("source_anatomy=heart", "source_anatomy must be"),
        ("source_plane=oblique", "source_plane must be"),
        ("source_slice_step=0", "source_slice_step must be"),
        ("source_center=2", "source_center must be"),
        ("source_train=-1", "source_train must be"),
        ("n_slices=40", "must lie in the object"),
        ("source=null source_plane=axial", "source_plane is an option of scans from images"),
    ],
)
def test_wrong_options_of_images_are_one_line(mrisem, source, tmp_path, words, said):
    given = ["scale=smoke", f"source={source}", f"output_dir={tmp_path / 'out'}", *words.split()]
    if "source=null" in given:
        given.remove(f"source={source}")
    code, _, err = mrisem("simulate", *given)
    lines = [line for line in err.splitlines() if line.strip() and not line.startswith("simulate:")]
    assert code == 1
    assert len(lines) == 1
    assert said in lines[0]
    assert not [*(tmp_path / "out").rglob("*.h5")]


def test_images_of_a_path_with_spaces(mrisem, tmp_path, write_nifti):
    write_nifti(tmp_path / "my images (old)" / "one head.nii")
    words = ["scale=smoke", f"source={tmp_path}/my images (old)", f"output_dir={tmp_path}/out"]
    code, out, err = mrisem("simulate", *words)
    assert code == 0, err
    assert "1 files written" in out
    (path,) = (tmp_path / "out").rglob("*.h5")
    assert " " not in path.name


def test_more_than_the_disk_holds_is_an_input_error(source, tmp_path):
    with pytest.raises(InputError, match="GB of free disk"):
        simulate(source, tmp_path / "out", "n_slices=100000000")


def test_pages_say_which_scans_were_simulated_from_images(mrisem, source, tmp_path):
    simulate(source / "deeper", tmp_path / "data")
    run_folder = f"output_dir={tmp_path}/run"
    words = ["data=brain", f"data.root={tmp_path}/data/brain", "model=zero_filled", "prior=none"]
    assert mrisem("reconstruct", *words, "scale=smoke", run_folder)[0] == 0
    assert mrisem("evaluate", run_folder, "metrics={}")[0] == 0
    code, _, err = mrisem("report", f"runs=[{tmp_path}/run]", run_folder)
    assert code == 0, err
    page = (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert "simulated from images (k-space computed from magnitude images)" in page
