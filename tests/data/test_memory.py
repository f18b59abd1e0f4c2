"""A long run keeps neither memory nor open files."""

import resource
from pathlib import Path

import numpy as np
import pytest

from mrisem.data.dataset import SliceGroups, central_slices
from mrisem.data.volumes import inspect_volume
from mrisem.physics.masks import GaussianMask

N_SLICES = 2000


def memory_mb():
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux only")
def test_reading_2000_slices_keeps_neither_memory_nor_files(tmp_path, make_file):
    path = make_file(tmp_path / "a.h5", shape=(4, 4, 96, 64))
    groups = SliceGroups(central_slices([inspect_volume(path)], None), GaussianMask(4, 8))
    memory, files = [], []
    for _ in range(N_SLICES // 4):
        assert len(groups[0]) == 4
        memory.append(memory_mb())
        files.append(len([*Path("/proc/self/fd").iterdir()]))
    half = len(memory) // 2
    slices = 4 * np.arange(half)
    slope = 1000 * np.polyfit(slices, memory[half:], 1)[0]
    print(f"memory: {slope:.2f} MB in 1000 slices, open files: {files[0]} to {max(files)}")
    assert slope < 5  # a slice has 0.2 MB: one in 40 kept would show
    assert files[-1] <= files[10]
