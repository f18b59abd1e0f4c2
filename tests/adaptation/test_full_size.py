"""Janus-Pro-1B's real sizes with random weights: what three steps of `mrisem adapt` cost."""

import json
import resource
import subprocess
import sys
import time

import pytest


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_janus_pro_1b_adapts_three_steps_within_16_gib(janus_pro_1b, pairs, tmp_path):
    words = [f"pairs={pairs}", f"earlier={pairs}", f"encoder.path={janus_pro_1b}"]
    words += ["steps=3", "batch_size=1", "n_images=1", "gradient_checkpointing=true"]
    command = [sys.executable, "-m", "mrisem", "adapt", "encoder=janus_pro_1b", *words]
    start = time.perf_counter()
    ended = subprocess.run(
        [*command, "encoder.dtype=bfloat16", f"output_dir={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=3300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # GiB
    print(f"{time.perf_counter() - start:.0f} s, {peak:.1f} GiB\n{ended.stdout}")
    log = json.loads((tmp_path / "adapt.json").read_text())
    assert len(log["losses"]) == 3
    assert log["n_layers"] > 300
    assert peak < 16
