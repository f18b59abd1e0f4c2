"""Runs `kills.py` in a process of its own: one that forks may have no threads of other tests."""

import os
from pathlib import Path

import pytest

_PYTEST = Path(pytest.__file__).with_name("__main__.py")
_KILLS = Path(__file__).with_name("kills.py")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_runs_full_disks_and_shared_folders_lose_nothing(fork, monkeypatch, tmp_path, kills):
    for name in [name for name in os.environ if name.startswith("PYTEST")]:
        monkeypatch.delenv(name)  # of xdist, too
    monkeypatch.setenv("MRISEM_STRESS", os.environ.get("MRISEM_STRESS", str(kills)))
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/kills"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins are there already
    process = fork(_PYTEST, *options, _KILLS)
    out, err = process.communicate(timeout=3500)
    assert process.returncode == 0, out[-6000:] + err[-2000:]
