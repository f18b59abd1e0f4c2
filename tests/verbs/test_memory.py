"""Memory of the process: freed arrays are not given back to the system."""

import subprocess
import sys

import pytest

CHILD = """
import resource
import sys
from pathlib import Path

import numpy as np
from mrisem.verbs.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(2**26, np.uint8)[::4096] = 1  # 64 MB, each page touched
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = sys.argv[1] == "kept" and keep_freed_memory()
faults()
print(kept, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's mallopt")
def test_keep_freed_memory_spares_the_page_faults_of_the_next_array():
    pages = {}
    for how in ("kept", "returned"):
        command = [sys.executable, "-c", CHILD, how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        was_kept, n = done.stdout.split()
        if how == "kept" and was_kept == "False":
            pytest.skip("a C library without mallopt")
        pages[how] = int(n)
    assert pages["returned"] > 16  # huge pages: 32 of 2 MB; others: 16384 of 4 kB
    assert pages["kept"] < pages["returned"] / 8
