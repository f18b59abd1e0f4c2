"""The benchmarks run, at the smallest sizes, and what they compare agrees. No time is judged."""

import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).with_name("benchmarks")
GROUPS = {"solve", "starts", "stacked", "route", "bank", "guided", "growth", "peers", "espirit"}


def run(script, *options):
    command = [sys.executable, FOLDER / script, "--quick", *map(str, options)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # tests run side by side
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, check=False, env=one_thread
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_benchmarks_every_row_runs_and_agrees(tmp_path):
    run("run.py", "--threads", 1, "--output", tmp_path)
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert {row["group"] for row in kept["rows"]} == GROUPS
    assert kept["facts"]["threads"] == 1
    for row in kept["rows"]:
        rough = "bfloat16" in row["name"] or "wavelet" in row["name"]
        # Adam's first steps hang on the signs of gradients
        limit = 0.05 if rough else 1e-3 if row["group"] == "stacked" else 1e-5
        assert row["difference"] is None or row["difference"] < limit, row
    lines = (tmp_path / "bench.md").read_text().splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(kept["rows"])


def test_benchmarks_device_script_compares_with_the_cpu(tmp_path):
    run("device.py", "--device", "cpu", "--only", "agreement", "batch", "--output", tmp_path)
    rows = json.loads((tmp_path / "device.json").read_text())["rows"]
    assert [row["note"] for row in rows[:4]] == ["right"] * 4
    assert all(row["ratios"][0] > 0 for row in rows)
