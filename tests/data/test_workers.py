import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from mrisem.data.workers import MAX_READERS, count_readers
from mrisem.signals import leave

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """Give the machine a number of cores and free shared memory."""

    def make(cores, free=2**40):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        monkeypatch.setattr("pathlib.Path.is_dir", lambda _: True)

    return make


def test_readers_follow_cores_batches_and_shared_memory(machine, monkeypatch):
    machine(cores=16)
    assert count_readers("auto", 100, 2**20, GPU) == MAX_READERS
    assert count_readers("auto", 100, 2**20, CPU) == 0  # readers would take the fit's cores
    assert count_readers("auto", 3, 2**20, GPU) == 0
    assert count_readers(3, 1, 2**50, CPU) == 3  # what is asked for
    machine(cores=3)
    assert count_readers("auto", 100, 2**20, GPU) == 2
    machine(cores=1)
    assert count_readers("auto", 100, 2**20, GPU) == 0
    machine(cores=16, free=64 * 2**20)  # a container
    assert count_readers("auto", 100, 2**24, GPU) == 3
    assert count_readers("auto", 100, 2**28, GPU) == 0
    machine(cores=16)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")  # processes of one run on this machine
    assert count_readers("auto", 100, 2**20, GPU) == 1


def test_a_batch_needs_no_more_bytes_than_it_is_counted_for(tmp_path, make_file):
    from mrisem.data.dataset import SliceGroups
    from mrisem.data.slices import central_slices
    from mrisem.data.volumes import inspect_volume
    from mrisem.physics.masks import GaussianMask

    path = make_file(tmp_path / "a.h5", shape=(2, 4, 640, 368), padding=(10, 358))
    groups = SliceGroups(central_slices([inspect_volume(path)], None), GaussianMask(4, 8))
    tensors = [value for value in vars(groups[0]).values() if isinstance(value, torch.Tensor)]
    n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert 0.8 * groups.batch_bytes < n_bytes <= groups.batch_bytes


class Signalled(torch.utils.data.Dataset):
    """Sends a signal to the process that reads it."""

    def __init__(self, number):
        self.number = number

    def __len__(self):
        return 3

    def __getitem__(self, index):
        os.kill(os.getpid(), self.number)
        return index


@pytest.mark.parametrize("number", [2, 15, 10])
def test_a_reader_leaves_signals_to_the_process_that_started_it(number):
    loader = DataLoader(Signalled(number), batch_size=None, num_workers=1, worker_init_fn=leave)
    assert list(loader) == [0, 1, 2]
