"""Several devices: a process each, which share one run."""

import subprocess
import sys

import h5py
import numpy as np

TWO = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]


def reconstructions(folder):
    found = {}
    for path in sorted((folder / "reconstructions").iterdir()):
        with h5py.File(path) as file:
            found[path.name] = (file["slices"][()].tolist(), file["image"][()])
    return found


def test_two_processes_reconstruct_what_one_does(mrisem, simulated, tmp_path):
    data = ["data=brain", f"data.root={simulated / 'brain'}", "scale=smoke"]
    run = ["reconstruct", *data, "model=cg_sense", "scale.fit.slices_at_once=1"]
    code, one, err = mrisem(*run, f"output_dir={tmp_path}/one")
    assert code == 0, err
    code, two, err = mrisem(*run, *TWO, f"output_dir={tmp_path}/two")
    assert code == 0, err
    assert "cg_sense: 6 slices reconstructed, 0 were there, 0 scans failed" in one
    assert "cg_sense: 6 slices reconstructed, 0 were there, 0 scans failed" in two
    expected, shared = (reconstructions(tmp_path / name) for name in ("one", "two"))
    assert shared.keys() == expected.keys()
    for name, (slices, image) in expected.items():
        assert shared[name][0] == slices
        np.testing.assert_array_equal(shared[name][1], image)


def test_what_fails_in_another_process_counts(mrisem, simulated, tmp_path):
    folder = tmp_path / "brain" / "multicoil_val"
    folder.mkdir(parents=True)
    for path in (simulated / "brain" / "multicoil_val").glob("*AXT2*.h5"):
        (folder / path.name).write_bytes(path.read_bytes())
        with h5py.File(folder / path.name, "a") as file:
            file["kspace"][1] = 0  # the second group of slices, the other process's
    run = ["reconstruct", "data=brain", f"data.root={folder.parent}", "scale=smoke"]
    more = ["model=zero_filled", "scale.fit.slices_at_once=1", *TWO]
    code, out, _ = mrisem(*run, *more, f"output_dir={tmp_path}/r")
    assert code == 2
    assert "1 slices reconstructed, 0 were there, 1 scans failed" in out
    assert "got only zeros" in (tmp_path / "r" / "failed.json").read_text()


def test_two_processes_train_one_network(simulated, tmp_path):
    data = ["data=brain", f"data.root={simulated / 'brain'}", "data.acquisition=AXT2"]
    train = ["train", *data, "scale=smoke", "model=unet", "data.train_subjects=auxiliary", *TWO]
    done = subprocess.run(
        [sys.executable, "-m", "mrisem", *train, f"output_dir={tmp_path}/t"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "trained unet" in done.stdout
    assert (tmp_path / "t" / "checkpoints" / "last.ckpt").is_file()
