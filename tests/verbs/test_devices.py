"""Several devices: a process each, which share one run."""

import os
import re
import shutil
import signal
import subprocess
import time
from functools import partial
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mrisem.errors import InputError
from mrisem.verbs import gathering
from mrisem.verbs.devices import Place, fit_options

TWO = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]


def reconstructions(folder):
    found = {}
    for path in sorted((folder / "reconstructions").iterdir()):
        with h5py.File(path) as file:
            found[path.name] = (file["slices"][()].tolist(), file["image"][()])
    return found


def test_two_processes_reconstruct_what_one_does_and_count_what_fails(mrisem, simulated, tmp_path):
    folder = shutil.copytree(simulated / "brain", tmp_path / "brain")
    (path,) = (folder / "multicoil_val").glob("*AXT2*.h5")
    with h5py.File(path, "a") as file:
        file["kspace"][1] = 0  # of the second process: slices are dealt out in turn
    data = ["data=brain", f"data.root={folder}", "scale=smoke"]
    run = ["reconstruct", *data, "model=cg_sense", "scale.fit.slices_at_once=1"]
    for name, devices in (("one", []), ("two", TWO)):
        code, out, err = mrisem(*run, *devices, f"output_dir={tmp_path / name}")
        assert code == 2, err
        assert "cg_sense: 5 slices reconstructed, 0 were there, 1 scans failed" in out
        assert "got only zeros" in (tmp_path / name / "failed.json").read_text()
    expected, shared = (reconstructions(tmp_path / name) for name in ("one", "two"))
    assert shared.keys() == expected.keys()
    for name, (slices, image) in expected.items():
        assert shared[name][0] == slices
        np.testing.assert_array_equal(shared[name][1], image)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Let each process compute with one thread: rounding would grow over the steps of a fit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def fits(simulated):
    """A run of six fits, of a second or so each."""
    data = ["data=brain", f"data.root={simulated / 'brain'}", "scale=smoke"]
    more = ["scale.fit.slices_at_once=1", "fit.iterations=20", "trainer.accelerator=cpu"]
    return ["reconstruct", *data, *more]


@pytest.fixture(scope="module")
def start(fork):
    """Start the command line in a process of its own."""
    return partial(fork, "mrisem")


@pytest.fixture(scope="module")
def of_one_process(start, fits, tmp_path_factory):
    """What one process reconstructs."""
    folder = tmp_path_factory.mktemp("one")
    code, _, err = end(start(*fits, f"output_dir={folder}"))
    assert code == 0, err
    return reconstructions(folder)


def end(process):
    """Wait for a process -> code, out, err."""
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def wait_for_slices(folder, n, *processes):
    """Wait until ``n`` slices of a run are kept."""
    while len([*folder.glob("reconstructions/.parts/*/*.npz")]) < n:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)


def assert_rest_is_made(start, run, folder, of_one_process):
    """Continue a run: each slice is there once, as one process makes it."""
    before = {p: p.stat().st_mtime_ns for p in folder.glob("reconstructions/.parts/*/*.npz")}
    volumes = {p: p.stat().st_mtime_ns for p in folder.glob("reconstructions/*.h5")}
    # a process with one thread, too: another number would change the rounding
    code, out, err = end(start(*run, f"output_dir={folder}"))
    assert code == 0, err
    n, there = map(int, re.findall(r"(\d) slices reconstructed, (\d) were there", out)[0])
    assert n + there == 6
    assert there == len(before) + 2 * len(volumes) > 0
    assert {p: p.stat().st_mtime_ns for p in volumes} == volumes
    made = reconstructions(folder)
    assert [slices for slices, _ in made.values()] == [[0, 1]] * 3
    for name, (_, image) in of_one_process.items():
        assert np.linalg.norm(made[name][1] - image) < 1e-4 * np.linalg.norm(image)


def test_first_process_is_asked_to_end_and_continued(start, fits, tmp_path, of_one_process):
    process = start(*fits, *TWO, f"output_dir={tmp_path}/r")
    wait_for_slices(tmp_path / "r", 1, process)
    process.send_signal(signal.SIGTERM)
    code, _, err = end(process)
    assert code == 143
    assert "slices are kept" in err
    assert_rest_is_made(start, fits, tmp_path / "r", of_one_process)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["first", "second"])
def test_a_process_is_killed_and_the_run_continued(start, fits, tmp_path, killed, of_one_process):
    process = start(*fits, *TWO, f"output_dir={tmp_path}/r")
    wait_for_slices(tmp_path / "r", 1, process)
    (other,) = subprocess.check_output(["pgrep", "-P", str(process.pid)], text=True).split()
    os.kill(process.pid if killed == "first" else int(other), signal.SIGKILL)
    code, _, err = end(process)
    if killed == "first":
        assert code == -signal.SIGKILL
        limit = time.monotonic() + 30
        while os.path.exists(f"/proc/{other}") and time.monotonic() < limit:  # noqa: PTH110
            time.sleep(0.1)
        assert not os.path.exists(f"/proc/{other}")  # noqa: PTH110
    else:
        assert code == 1
        assert "each of the 2 processes must end well, one ended with -9" in err
    assert_rest_is_made(start, [*fits, *TWO], tmp_path / "r", of_one_process)


def srun(rank, n=2):
    """What srun tells a task."""
    facts = {"PROCID": rank, "LOCALID": rank, "NODEID": 0, "NTASKS": n, "STEP_NUM_TASKS": n}
    return {f"SLURM_{name}": value for name, value in facts.items()}


def torchrun(rank, n=2):
    """What torchrun tells a process."""
    return {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n}


@pytest.mark.parametrize("started", [srun, pytest.param(torchrun, marks=pytest.mark.slow)])
def test_processes_that_somebody_else_has_started_share_a_run(
    start, fits, tmp_path, started, of_one_process
):
    run = [*fits, f"output_dir={tmp_path}/r"]
    processes = [start(*run, **started(rank)) for rank in (1, 0)]
    wait_for_slices(tmp_path / "r", 1, *processes)
    processes[0].kill()
    assert end(processes[0])[0] == -signal.SIGKILL
    code, _, err = end(processes[1])
    assert code == 1
    assert "each of the 2 processes must end well, 1 did not" in err
    processes = [start(*run, **started(rank)) for rank in (0, 1)]
    (code, out, err), other = map(end, processes)
    assert (code, other[0], other[1]) == (0, 0, "")
    n, there = map(int, re.findall(r"(\d) slices reconstructed, (\d) were there", out)[0])
    assert n + there == 6
    assert there >= 3  # the first one's share
    assert_rest_is_made(start, fits, tmp_path / "r", of_one_process)


def test_a_process_that_does_not_come_is_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "PATIENCE", 0.3)
    with (
        pytest.raises(gathering.InputError, match=r"must start within .* got none of number 1"),
        gathering.gathered(tmp_path, 2),
    ):
        raise AssertionError
    with (
        pytest.raises(gathering.InputError, match="the first process must open"),
        gathering.following(tmp_path, 1),
    ):
        raise AssertionError


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["trainer.num_nodes=2"], {}, "start them with torchrun or srun"),
        (["trainer.devices=3"], srun(0), "must start trainer.devices x trainer.num_nodes = 3"),
        (["--multirun", "seed=0,1"], srun(1), "a sweep must be started by one process"),
        ([], {"RANK": 0, "WORLD_SIZE": 2}, "need LOCAL_RANK"),
    ],
)
def test_what_cannot_run_on_several_devices_is_one_line(
    mrisem, fits, tmp_path, monkeypatch, options, environment, message
):
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    verb, *words = fits
    code, _, err = mrisem(verb, *options, *words, f"output_dir={tmp_path}/r")
    assert code == 1
    assert message in err
    assert "Traceback" not in err


def test_srun_without_tasks_per_node_is_told_what_to_add(monkeypatch):
    for name, value in srun(0).items():
        monkeypatch.setenv(name, str(value))
    config = OmegaConf.create({"trainer": {"devices": 2, "accelerator": "cpu"}})
    with pytest.raises(InputError, match=r"got --ntasks alone; start it with --ntasks-per-node=N"):
        fit_options(config, Place(0, 0, 2, "srun"))


def test_a_batch_script_of_several_tasks_is_one_process(mrisem, simulated, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")  # sbatch sets them, and has started one
    monkeypatch.setenv("SLURM_PROCID", "0")
    run = ["data=brain", f"data.root={simulated / 'brain'}", "scale=smoke", "model=zero_filled"]
    code, out, err = mrisem("reconstruct", *run, f"output_dir={tmp_path}/r")
    assert code == 0, err
    assert "6 slices reconstructed" in out


@pytest.fixture
def training(simulated):
    data = ["data=brain", f"data.root={simulated / 'brain'}", "data.acquisition=AXT2"]
    options = ["model=unet", "data.train_subjects=auxiliary", "scale.train.epochs=30"]
    options += ["auxiliary.n_subjects=1", "data.validation_subjects=1"]
    return ["train", *data, "scale=smoke", *options]


def weights(folder):
    names = ("last", "best")
    paths = [folder / "checkpoints" / f"{name}.ckpt" for name in names]
    return [torch.load(path, weights_only=True)["state_dict"] for path in paths]


def test_two_processes_train_one_network_and_continue(fork, start, training, tmp_path):
    """Tasks of srun; a batch script of SLURM, asked to end midway; and torchrun."""
    whole = [*training, *TWO, f"output_dir={tmp_path}/w"]
    (code, out, err), other = map(
        end, [start(*whole, **srun(rank), SLURM_NTASKS_PER_NODE=2) for rank in (0, 1)]
    )
    assert (code, other[0]) == (0, 0), err
    assert "trained unet" in out
    process = start(*training, *TWO, f"output_dir={tmp_path}/t", SLURM_NTASKS=1, SLURM_PROCID=0)
    while not (tmp_path / "t" / "checkpoints" / "last.ckpt").is_file():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    code, _, err = end(process)
    assert code == 143, err
    epochs = int(re.findall(r"(\d+) epochs are kept", err)[0])
    assert 1 <= epochs < 30
    torchrun = [find_spec("torch.distributed.run").origin, "--standalone", "--nproc-per-node=2"]
    command = ["-m", "mrisem", *training, *TWO, f"output_dir={tmp_path}/t"]
    code, out, err = end(fork(*torchrun, *command))
    assert code == 0, err
    assert out.count("trained unet") == 1
    torch.testing.assert_close(weights(tmp_path / "t"), weights(tmp_path / "w"), rtol=0, atol=0)
