"""Sweeps: a failed job does not stop the others, shows in the summary, and runs again alone."""

import json
import shlex
import subprocess
import sys

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from mrisem.config.compose import CONF, folder_name
from mrisem.verbs.reconstruct import make_task

SEEDS = range(4)


@pytest.fixture
def arguments(simulated):
    select = ["data.acquisition=CORPD_FBK", "data.max_slices=1"]
    return ["data=knee", f"data.root={simulated / 'knee'}", "scale=smoke", *select]


@pytest.fixture
def checkpoints(tmp_path):
    """Folder with a checkpoint for each seed but 2."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("reconstruct", overrides=["scale=smoke", "output_dir=x"])
    for seed in SEEDS:
        torch.save({"state_dict": make_task(config).state_dict()}, folder / f"{seed}.ckpt")
    (folder / "2.ckpt").rename(folder / "elsewhere.ckpt")
    return folder


@pytest.fixture
def in_a_process(fork):
    """Run the command line in a process of its own -> code, out, err."""

    def run(*arguments):
        process = fork("mrisem", *arguments)
        out, err = process.communicate()
        return process.returncode, out, err

    return run


def in_a_started_process(*arguments):
    """The same; a forked one would wait minutes for joblib's idle workers at its end."""
    done = subprocess.run(
        [sys.executable, "-m", "mrisem", *map(str, arguments)],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def record(folder, setting):
    (run,) = folder.glob(f"*{setting}*")
    return run, json.loads((run / ".hydra" / "reconstruct" / "job.json").read_text())


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_sweep_of_four_with_a_failed_job(mrisem, arguments, checkpoints, tmp_path, launcher):
    folder = tmp_path / "sweep"
    options = []
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
        mrisem = (
            in_a_started_process  # its workers outlive a sweep, and know that sweep's name only
        )
        options = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    sweep = [
        "reconstruct", "--multirun", *arguments, "fit=none", f"output_dir={folder}",
        f"seed={','.join(map(str, SEEDS))}", f"model.checkpoint={checkpoints}/${{seed}}.ckpt",
        *options,
    ]  # fmt: skip
    code, out, err = mrisem(*sweep)
    assert code == 1
    lines = out.splitlines()
    assert "4 jobs: 3 done, 1 failed" in lines
    assert sum(line.startswith("  failed: ") for line in lines) == 1
    assert "model.checkpoint" in next(line for line in lines if line.startswith("  failed: "))
    assert err.count("mrisem reconstruct: ") == 1
    assert len(list(folder.glob("*/reconstructions/*.h5"))) == 3
    run, facts = record(folder, "seed-2")
    assert (facts["state"], facts["exit_code"]) == ("failed", 1)
    assert "InputError" in (run / ".hydra" / "reconstruct" / "error.txt").read_text()
    summary = json.loads((folder / "sweep.json").read_text())
    assert summary["counts"] == {"done": 3, "failed": 1, "incomplete": 0}

    made = {file: file.stat().st_mtime_ns for file in folder.glob("*/reconstructions/*.h5")}
    (checkpoints / "elsewhere.ckpt").rename(checkpoints / "2.ckpt")
    code, out, err = mrisem(*sweep)
    assert code == 0, err
    assert "4 jobs: 4 done" in out.splitlines()
    assert out.count(" 0 slices reconstructed, 1 were there") == 3
    assert out.count(" 1 slices reconstructed, 0 were there") == 1
    assert {file: file.stat().st_mtime_ns for file in made} == made
    assert not (run / ".hydra" / "reconstruct" / "error.txt").exists()


def test_sweep_goes_on_after_an_error_that_nobody_expected(
    mrisem, arguments, tmp_path, monkeypatch
):
    import mrisem.verbs.reconstruct as verb

    make = verb.make_task

    def fails_at_one(config):
        if config.seed == 1:
            raise RuntimeError("out of memory")
        return make(config)

    monkeypatch.setattr(verb, "make_task", fails_at_one)
    sweep = ["--multirun", *arguments, "model=zero_filled", "seed=0,1,2"]
    code, out, err = mrisem("reconstruct", *sweep, f"output_dir={tmp_path}/s")
    assert code == 1
    assert "3 jobs: 2 done, 1 failed" in out
    assert "mrisem reconstruct: RuntimeError: out of memory" in err
    run, facts = record(tmp_path / "s", "seed-1")
    assert facts["message"] == "RuntimeError: out of memory"
    assert "fails_at_one" in (run / ".hydra" / "reconstruct" / "error.txt").read_text()


def test_record_of_a_job_says_how_to_make_it_again(mrisem, arguments, tmp_path):
    run = ["reconstruct", *arguments, "model=zero_filled", "seed=3", f"output_dir={tmp_path}/r"]
    assert mrisem(*run)[0] == 0
    facts = json.loads((tmp_path / "r/.hydra/reconstruct/job.json").read_text())
    assert facts["state"] == "done"
    assert facts["seed"] == 3
    assert facts["sweep"] is None
    assert facts["command"].startswith("mrisem reconstruct data=knee ")
    assert torch.__version__.startswith(facts["versions"]["torch"])
    assert not (tmp_path / "r" / "sweep.json").exists()


def test_command_of_a_sweeps_job_makes_that_job_again_alone(mrisem, simulated, tmp_path):
    data = ["data=knee", f"data.root={simulated}/${{data.name}}", "data.max_slices=1"]
    sweep = [*data, "scale=smoke", "model=zero_filled,cg_sense", f"output_dir={tmp_path}/s"]
    assert mrisem("reconstruct", "--multirun", *sweep)[0] == 0
    (run,) = (tmp_path / "s").glob("*cg_sense*")
    _, verb, *words = shlex.split(
        json.loads((run / ".hydra" / "reconstruct" / "job.json").read_text())["command"]
    )
    assert json.loads((run / "record.json").read_text())["overrides"] == words
    code, out, err = mrisem(verb, *words)
    assert code == 0, err
    assert "cg_sense: 0 slices reconstructed, 2 were there" in out
    assert str(run) in out


def test_sweep_with_skipped_scans_ends_with_two(mrisem, simulated, tmp_path):
    root = tmp_path / "knee" / "multicoil_val"
    root.mkdir(parents=True)
    (good,) = (simulated / "knee" / "multicoil_val").glob("*CORPD_FBK*.h5")
    (root / good.name).write_bytes(good.read_bytes())
    (root / "broken.h5").write_bytes(b"nothing")
    sweep = ["--multirun", "data=knee", f"data.root={root.parent}", "scale=smoke", "seed=0,1"]
    code, out, _ = mrisem(
        "reconstruct", *sweep, "model=zero_filled", "on_error=skip", f"output_dir={tmp_path}/s"
    )
    assert code == 2
    assert "2 jobs: 2 incomplete" in out


def test_sweep_with_a_killed_job_is_summed_up_all_the_same(in_a_process, arguments, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    code, out, err = in_a_process(
        "reconstruct", "--multirun", *arguments, "model=zero_filled",
        "+trainer.plugins={_target_:os.abort},null", f"output_dir={tmp_path}/s",
        "hydra/launcher=joblib", "hydra.launcher.n_jobs=2",
    )  # fmt: skip
    assert code == 1
    (line,) = [line for line in out.splitlines() if "os.abort" in line and "failed: " in line]
    assert "killed?" in line
    assert "mrisem reconstruct: TerminatedWorkerError" in err
    summary = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert summary["counts"]["failed"] >= 1


def test_sweep_in_submitit_processes_is_summed_up_all_the_same(in_a_process, arguments, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    code, out, err = in_a_process(
        "reconstruct", "--multirun", *arguments, "model=zero_filled", "mask.acceleration=4,60",
        f"output_dir={tmp_path}/s", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=9",
    )  # fmt: skip
    assert code == 1, err[-2000:]
    assert "2 jobs: 1 done, 1 failed" in out
    assert len(list((tmp_path / "s").glob("*/reconstructions/*.h5"))) == 1
    assert "calibration" in record(tmp_path / "s", "acceleration-60")[1]["message"]


def test_sweeper_that_optimises_gets_the_score(in_a_process, arguments, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    code, _, err = in_a_process(
        "reconstruct", "--multirun", *arguments, "model=zero_filled", "returns=psnr",
        "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.direction=maximize",
        "hydra.sweeper.n_jobs=1", "hydra.sweeper.sampler.seed=0",
        "mask.acceleration=choice(3,4)", f"output_dir={tmp_path}/s",
    )  # fmt: skip
    assert code == 0, err[-2000:]
    assert len(list((tmp_path / "s").glob("*acceleration*"))) == 2  # both were tried
    best = yaml.safe_load((tmp_path / "s" / "optimization_results.yaml").read_text())
    assert best["best_params"] == {"mask.acceleration": 3}  # more samples, higher PSNR
    assert 15 < best["best_value"] < 60


@pytest.mark.parametrize("place", ["words", "yaml"])
def test_hydras_own_mode_makes_a_sweep_of_a_plain_command(mrisem, arguments, tmp_path, place):
    words = ["hydra.mode=MULTIRUN"]
    if place == "yaml":
        (tmp_path / "conf" / "experiment").mkdir(parents=True)
        text = "# @package _global_\nhydra: {mode: MULTIRUN}\n"
        (tmp_path / "conf" / "experiment" / "many.yaml").write_text(text)
        words = ["--config-dir", tmp_path / "conf", "experiment=many"]
    run = [*words, *arguments, "model=zero_filled", "seed=0,1", f"output_dir={tmp_path}/s"]
    code, out, err = mrisem("reconstruct", *run)
    assert code == 0, err
    assert "2 jobs: 2 done" in out.splitlines()


def test_returned_score_must_exist(mrisem, arguments, tmp_path):
    code, _, err = mrisem(
        "reconstruct", *arguments, "model=zero_filled", "returns=beauty", f"output_dir={tmp_path}/r"
    )
    assert code == 1
    assert "returns must be one of psnr" in err


def test_folder_of_a_job_is_one_folder_with_a_name_of_its_own():
    long = [f"prior.levels=[{'1,' * 200}{last}]" for last in (1, 2)]
    names = {folder_name([text]) for text in long}
    assert len(names) == 2
    assert all(len(name) <= 200 for name in names)
