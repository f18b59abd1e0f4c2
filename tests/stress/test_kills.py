"""Runs `kills.py` in a process of its own: one that forks may have no threads of other tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kills", [10, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_runs_full_disks_and_shared_folders_lose_nothing(kills):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    clean = {"MRISEM_STRESS": str(kills)} | clean
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         str(Path(__file__).with_name("kills.py"))],
        env=clean | dict.fromkeys(_ONE_THREAD, "1"),
        capture_output=True, text=True, timeout=3500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
