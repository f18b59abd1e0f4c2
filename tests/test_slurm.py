"""A sweep through a real SLURM of one node, which `tests/slurm/start.sh` starts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SLURM = Path(__file__).parent / "slurm"
CLI = "from mrisem.cli import main; main()"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="starting SLURM needs root"),
    pytest.mark.skipif(
        not Path("/usr/sbin/slurmctld").exists() or shutil.which("munge") is None,
        reason="needs SLURM: apt-get install slurm-wlm munge",
    ),
]


@pytest.fixture
def cluster(tmp_path):
    """Environment in which sbatch finds a running cluster."""
    folder = tmp_path / "slurm"
    started = subprocess.run(
        [SLURM / "start.sh", folder], capture_output=True, text=True, timeout=120, check=False
    )
    assert started.returncode == 0, started.stdout + started.stderr
    yield os.environ | {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
    }
    subprocess.run([SLURM / "stop.sh", folder], check=True)


def test_sweep_through_slurm_queues_runs_and_leaves_results(cluster, simulated, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    folder = tmp_path / "sweep"
    overrides = [
        "data=knee", f"data.root={simulated / 'knee'}", "data.acquisition=CORPD_FBK",
        "data.max_slices=1", "scale=smoke", "model=zero_filled", "mask.acceleration=3,4,60",
        "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=20",
        "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=null",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CLI, "reconstruct", "--multirun", *overrides,
         f"output_dir={folder}"],
        env=cluster, capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip
    assert "3 jobs: 2 done, 1 failed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1
    assert len(list(folder.glob("*/reconstructions/*.h5"))) == 2
    summary = json.loads((folder / "sweep.json").read_text())
    (failed,) = [job for job in summary["jobs"] if job["state"] == "failed"]
    assert "calibration" in failed["message"]
    queued = list((folder / ".submitit").rglob("*_submission.sh"))
    assert queued  # the jobs went through sbatch
    assert "#SBATCH --array" in queued[0].read_text() or len(queued) == 3
