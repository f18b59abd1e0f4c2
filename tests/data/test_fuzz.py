"""Damaged and odd files: each gives finite batches or one line, and never hangs.

``MRISEM_FUZZ=5000`` tries that many files instead of 200.
"""

import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

N_FILES = int(os.environ.get("MRISEM_FUZZ", "200"))
SECONDS = 30  # without a word from the child: it hangs
FUZZ = Path(__file__).with_name("fuzz.py")


def run_child(first, folder):
    """Read files from number ``first`` on; return lines, and whether the child ended itself."""
    command = [sys.executable, str(FUZZ), "0", str(first), str(N_FILES), str(folder)]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    said = queue.Queue()
    errors = []
    readers = [
        threading.Thread(target=lambda: [said.put(line) for line in child.stdout] and None),
        threading.Thread(target=lambda: errors.append(child.stderr.read())),
    ]
    for reader in readers:
        reader.start()
    lines, hung = [], False
    while readers[0].is_alive() or not said.empty():
        try:
            lines.append(said.get(timeout=SECONDS if readers[0].is_alive() else 0.1))
        except queue.Empty:
            if readers[0].is_alive():
                hung = True
                child.kill()
    child.wait()
    for reader in readers:
        reader.join()
    child.stdout.close()
    child.stderr.close()
    return lines, "hang" if hung else child.returncode, "".join(errors)


@pytest.mark.timeout(60 + N_FILES)
def test_no_file_gives_nan_a_hang_or_more_than_one_line(tmp_path):
    first, faults, outcomes = 0, [], Counter()
    while first < N_FILES:
        lines, code, error = run_child(first, tmp_path)
        done = [line.split() for line in lines if len(line.split()) == 3]
        outcomes.update(outcome for *_, outcome in done)
        if code == 0:
            break
        begun = lines[-1].split() if lines else [str(first - 1), "start"]
        faults.append((begun[:2], code, error.strip().splitlines()[-1:]))
        first = int(begun[0]) + 1
        assert len(faults) < 20, faults
    print(f"{N_FILES} files: {dict(outcomes)}; {len(faults)} faults: {faults}")
    assert not faults
    # else nothing was tried: most damage shows, some leaves good slices
    assert sum(n for outcome, n in outcomes.items() if "batch" in outcome) > N_FILES / 20
    assert sum(n for outcome, n in outcomes.items() if "batch" not in outcome) > N_FILES / 4
