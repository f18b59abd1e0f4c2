"""Processes that are killed, run out of disk, or share a folder: what is there afterwards.

``MRISEM_STRESS=60`` gives the number of kills (6 without), and the other counts with it. The
command line runs in forked processes: what it imports is imported once, before, so that a kill
meets its work and not its imports; and a child may be killed.
"""

import errno
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open

for name in ("bank", "train", "reconstruct", "evaluate"):
    import_module(f"mrisem.verbs.{name}")
for name in ("accelerate", "fastmri.data", "fastmri.losses", "piq", "mrisem.tasks.classical"):
    import_module(name)  # what verbs import when they come to need it

TIMEOUT = 300  # seconds after which a run counts as hanging


def start(arguments, log, before=None):
    """Fork a process that runs ``mrisem ARGUMENTS`` and return its number.

    ``before`` is called in it first; its output goes to the file ``log``.
    """
    number = os.fork()
    if number:
        return number
    try:
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1)
        sys.stderr = os.fdopen(2, "w", buffering=1)
        from hydra.core.global_hydra import GlobalHydra

        from mrisem.cli import main

        GlobalHydra.instance().clear()
        sys.argv = ["mrisem", *map(str, arguments)]
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(name, signal.SIG_DFL)
        if before is not None:
            before()
        main()
    except SystemExit as ended:
        sys.stdout.flush()
        os._exit(int(ended.code or 0))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(99)  # only after an error that the command line did not turn into a line


def wait(number, seconds=TIMEOUT):
    """Return the exit code of a process, negative for the signal that killed it; None: it runs."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.005)


def finish(arguments, log, before=None):
    """Run to the end and return the exit code."""
    number = start(arguments, log, before)
    code = wait(number)
    if code is None:
        os.kill(number, signal.SIGKILL)
        wait(number)
    assert code is not None, f"{arguments} hangs: {Path(log).read_text()[-2000:]}"
    return code


def at_call(count, act):
    """Return a function that lets a process act before its n-th change of a file's name or end.

    Changes are those of `mrisem.files.whole` (flushing, taking the name) and removals.
    """

    def install():
        calls = iter(range(1, 10**9))

        def wrap(owner, name):
            original = getattr(owner, name)

            def counted(*arguments, **options):
                if next(calls) == count:
                    act()
                return original(*arguments, **options)

            setattr(owner, name, counted)

        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (shutil, "rmtree")):
            wrap(owner, name)

    return install


def die():
    """End the process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


KILLS = int(os.environ.get("MRISEM_STRESS", "6"))
SIGNALS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def data(simulated, tmp_path, monkeypatch):
    monkeypatch.setenv("MRISEM_CACHE", str(tmp_path / "cache"))
    return ["data=brain", f"data.root={simulated / 'brain'}", "scale=smoke", "data.max_slices=2"]


def commands(data, folder):
    """Each verb with what is compared of its output."""
    choice = [*data, "data.acquisition=AXT2"]
    return {
        "bank": (["bank", *choice], bank_bits),
        "train": (
            ["train", *choice, "model=unet", "scale.train.epochs=3", "auxiliary.n_subjects=1",
             "data.validation_subjects=1", "data.train_subjects=auxiliary", f"output_dir={folder}"],
            training_bits,
        ),
        "reconstruct": (
            ["reconstruct", *data, "prior=image_same", "encoder=janus_mini", "fit.log_every=1",
             f"output_dir={folder}"],
            run_bits,
        ),
    }  # fmt: skip


def bank_bits(folder, cache):
    bits = {}
    for path in (cache / "banks").glob("*.safetensors"):
        with safe_open(path, "np") as file:  # which writes its metadata in any order
            bits |= {f"{path.name} {n}": file.get_tensor(n).tobytes() for n in sorted(file.keys())}
            bits[path.name] = file.metadata()
    return bits


def training_bits(folder, cache):
    bits = {"metrics.csv": (folder / "metrics.csv").read_bytes()}
    for name in ("last", "best"):
        content = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        tensors = {**content["state_dict"], **flat(content["optimizer_states"][0]["state"])}
        bits |= {f"{name} {key}": value.numpy().tobytes() for key, value in tensors.items()}
    return bits


def flat(state):
    return {f"{k} {name}": value for k, own in state.items() for name, value in own.items()}


def run_bits(folder, cache):
    bits = {"fit.csv": (folder / "fit.csv").read_bytes() if (folder / "fit.csv").exists() else b""}
    for path in sorted((folder / "reconstructions").glob("*.h5")):
        with h5py.File(path) as file:
            assert len(set(file["slices"][()])) == len(file["slices"])
            names = sorted(set(file) - {"seconds"})
            bits |= {f"{path.name} {name}": file[name][()].tobytes() for name in names}
    embeddings = sorted((folder / "embeddings").rglob("*.npz"))
    for path in embeddings:
        with path.open("rb") as stream, np.load(stream) as arrays:
            bits |= {f"{path.parent.name} {path.stem} {n}": arrays[n].tobytes() for n in arrays}
    return bits


def no_litter(folder):
    left = [path.name for path in folder.rglob("*") if path.suffix in (".partial", ".npz")]
    return not [name for name in left if not re.fullmatch(r"\d+\.npz", name)]


@pytest.mark.parametrize("verb", ["bank", "train", "reconstruct"])
def test_a_killed_run_is_continued_to_the_same_bits(data, tmp_path, monkeypatch, verb):
    folder, log = tmp_path / "whole", tmp_path / "log"
    arguments, bits = commands(data, folder)[verb]
    began = time.monotonic()
    assert finish(arguments, log) == 0, log.read_text()
    length = time.monotonic() - began
    expected = bits(folder, tmp_path / "cache")
    monkeypatch.setenv("MRISEM_CACHE", str(tmp_path / "cache2"))
    folder = tmp_path / "killed"
    arguments, _ = commands(data, folder)[verb]
    draw, codes = random.Random(0), []
    for kill in range(KILLS // 3):
        number = start(arguments, log)
        time.sleep(length * draw.uniform(0.3, 1.0) / (1 + kill % 3))
        name = draw.choice([*SIGNALS])
        os.kill(number, name)
        code = wait(number, 60)
        assert code is not None, log.read_text()[-2000:]
        codes.append((name.name, code))
        assert code in (SIGNALS[name], 0, -name), codes
    assert finish(arguments, log) == 0, log.read_text()[-3000:]
    text = log.read_text()
    assert "Traceback" not in text, text[-3000:]
    if any(code in (130, 143) for _, code in codes):
        assert "the same command continues" in text
    assert bits(folder, tmp_path / "cache2") == expected


def test_a_run_killed_at_each_step_of_the_writer_loses_nothing(data, tmp_path):
    log = tmp_path / "log"
    arguments = ["reconstruct", *data, "model=zero_filled", "data.acquisition=AXT2"]
    assert finish([*arguments, f"output_dir={tmp_path}/whole"], log) == 0, log.read_text()
    expected = run_bits(tmp_path / "whole", None)
    codes, count = [], 0
    while 0 not in codes:
        count += 1 if KILLS >= 60 else 5
        folder = tmp_path / str(count)
        again = [*arguments, f"output_dir={folder}"]
        codes.append(finish(again, log, at_call(count, die)))
        assert codes[-1] in (-9, 0)
        assert finish(again, log) == 0, log.read_text()[-2000:]
        assert run_bits(folder, None) == expected
        assert no_litter(folder)
    assert codes.count(-9) >= 3
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("verb", ["evaluate"])
def test_a_killed_evaluation_is_repeated(data, tmp_path, verb):
    log, folder = tmp_path / "log", tmp_path / "r"
    assert finish(["reconstruct", *data, "model=zero_filled", f"output_dir={folder}"], log) == 0
    evaluate = [verb, f"output_dir={folder}"]
    assert finish(evaluate, log) == 0, log.read_text()[-2000:]
    expected = (folder / "metrics.csv").read_bytes()
    for count in range(1, 1 + max(3, KILLS // 6)):
        finish(evaluate, log, at_call(count, die))
        assert (folder / "metrics.csv").read_bytes() == expected  # the former, or the same anew
        assert finish(evaluate, log) == 0
        assert (folder / "metrics.csv").read_bytes() == expected
    assert "Traceback" not in log.read_text()


def test_a_full_disk_leaves_earlier_results_and_a_restart_completes(data, tmp_path):
    log = tmp_path / "log"
    arguments = ["reconstruct", *data, "model=zero_filled"]
    first = [*arguments, "data.acquisition=AXT1"]
    assert finish([*arguments, f"output_dir={tmp_path}/whole"], log) == 0, log.read_text()
    expected = run_bits(tmp_path / "whole", None)

    def full():
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    for count in range(1, 1 + max(2, KILLS // 6)):
        folder = tmp_path / str(count)
        assert finish([*first, f"output_dir={folder}"], log) == 0
        before = run_bits(folder, None)
        code = finish([*arguments, f"output_dir={folder}"], log, at_call(3 * count, full))
        assert code == 1, log.read_text()[-2000:]
        there = run_bits(folder, None)
        assert {key: there[key] for key in before} == before
        assert finish([*arguments, f"output_dir={folder}"], log) == 0, log.read_text()[-2000:]
        assert run_bits(folder, None) == expected
    text = log.read_text()
    assert "Traceback" not in text
    assert "No space left on device" in text


def test_processes_share_one_folder_and_one_bank(data, tmp_path):
    log = tmp_path / "log"
    n, rounds = (8, 10) if KILLS >= 60 else (3, 1)
    arguments = [
        "reconstruct",
        *data,
        "prior=image_same",
        "encoder=janus_mini",
        "data.acquisition=AXT2",
    ]
    for turn in range(rounds):
        os.environ["MRISEM_CACHE"] = str(tmp_path / f"cache{turn}")
        folder = tmp_path / f"shared{turn}"
        numbers = [start([*arguments, f"output_dir={folder}"], log) for _ in range(n)]
        assert [wait(number) for number in numbers] == [0] * n, log.read_text()[-3000:]
        slices = {}
        for path in (folder / "reconstructions").glob("*.h5"):
            with h5py.File(path) as file:
                slices[path.name] = file["slices"][()].tolist()
        assert slices
        assert all(len(set(found)) == len(found) == 2 for found in slices.values())
        assert len(list((tmp_path / f"cache{turn}" / "banks").glob("*.safetensors"))) == 1
    text = log.read_text()
    assert "Traceback" not in text
    assert len(re.findall(r"[1-9]\d* slices reconstructed, 0 were there", text)) == rounds
