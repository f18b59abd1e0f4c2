"""Sweeps through a Ray cluster of one machine, which the tests start."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time

import pytest

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'mrisem[ray]'")


@pytest.fixture(scope="module")
def cluster():
    """Environment in which Ray finds a running cluster of one core: jobs share what one imports."""
    # in a process of its own: Ray leaves processes and threads that warn when a test ends
    code = (
        "import ray, sys; ray.init(num_cpus=1, include_dashboard=False, logging_level='error', "
        "_node_ip_address='127.0.0.1');"
        "print(ray.get_runtime_context().gcs_address, flush=True); sys.stdin.read()"
    )
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex()}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | secret,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    address = process.stdout.readline().strip()
    assert address
    yield os.environ | secret | {"RAY_ADDRESS": address}
    process.communicate("", timeout=60)


@pytest.fixture
def sweep(simulated, tmp_path):
    select = ["data.acquisition=CORPD_FBK", "hydra/launcher=ray"]
    data = ["data=knee", f"data.root={simulated / 'knee'}", "scale=smoke"]
    return ["reconstruct", "--multirun", *data, *select, f"output_dir={tmp_path}/s"]


def start(*arguments, environment):
    return subprocess.Popen(
        [sys.executable, "-m", "mrisem", *map(str, arguments)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(*arguments, environment):
    process = start(*arguments, environment=environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_sweep_in_tasks_of_ray_is_summed_up_and_continued(cluster, sweep, tmp_path):
    words = [*sweep, "model=zero_filled", "mask.acceleration=3,60"]
    code, out, err = run(*words, environment=cluster)
    assert code == 1, err
    assert "2 jobs: 1 done, 1 failed" in out.splitlines()
    files = sorted((tmp_path / "s").glob("*/reconstructions/*.h5"))
    assert len(files) == 1
    summary = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert summary["counts"] == {"done": 1, "failed": 1, "incomplete": 0}
    (failed,) = [job for job in summary["jobs"] if job["state"] == "failed"]
    assert "calibration" in failed["message"]
    made = {file: file.stat().st_mtime_ns for file in files}
    code, out, err = run(*words[:-1], "mask.acceleration=3,2", environment=cluster)
    assert code == 0, err
    assert "2 jobs: 2 done" in out.splitlines()
    assert out.count(" 0 slices reconstructed, 2 were there") == 1
    assert {file: file.stat().st_mtime_ns for file in made} == made


@pytest.mark.slow
def test_a_killed_task_is_named_and_the_others_go_on(cluster, sweep, tmp_path):
    killed = ["model=zero_filled", "+trainer.plugins={_target_:os.abort},null"]
    code, out, err = run(*sweep, *killed, environment=cluster)
    assert code == 1
    assert "2 jobs: 1 done, 1 failed" in out.splitlines(), err
    assert "killed?" in out
    assert "mrisem reconstruct: WorkerCrashedError: " in err
    assert len([*(tmp_path / "s").glob("*/reconstructions/*.h5")]) == 1


@pytest.mark.slow
def test_jobs_end_after_their_batch_when_the_sweep_is_asked_to(sweep, simulated, tmp_path):
    """On this machine alone, without a cluster."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    fits = ["fit.iterations=30", "scale.fit.slices_at_once=1"]
    words = [*sweep, "model=unrolled", *fits, "seed=0,1", "+hydra.launcher.init.num_cpus=2"]
    process = start(*words, environment=environment)
    while not [*(tmp_path / "s").glob("*/reconstructions/.parts/*/*.npz")]:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 143, err
    assert re.search(r"2 jobs: .*interrupted", out), out + err
    code, out, err = run(*words, environment=environment)
    assert code == 0, err
    assert "2 jobs: 2 done" in out
    assert re.search(r" [01] slices reconstructed, [12] were there", out)
