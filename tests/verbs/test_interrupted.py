"""A signal to all processes of a run, as terminals and schedulers send it, beside a reader."""

import os
import re
import signal
import time


def test_a_signal_to_reader_and_run_keeps_the_batch(fork, mrisem, simulated, tmp_path):
    data = ["data=brain", f"data.root={simulated / 'brain'}", "scale=smoke", "data.n_workers=1"]
    folder = tmp_path / "r"
    run = ["reconstruct", *data, "scale.fit.slices_at_once=1", f"output_dir={folder}"]
    process = fork("mrisem", *run, "fit.iterations=20")
    while not [*folder.glob("reconstructions/.parts/*/*.npz")] and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.2)  # into the second slice
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    (n,) = map(int, re.findall(r"(\d) slices are kept", err))
    assert 1 <= n <= 5
    code, out, err = mrisem(*run, "fit.iterations=20")
    assert code == 0, err
    assert f"{6 - n} slices reconstructed, {n} were there" in out
