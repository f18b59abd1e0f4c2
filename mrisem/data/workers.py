"""Processes that read and prepare the next batches while the present one is worked on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

import torch

MOST = 4  # readers of one process: more wait for the same disk
_FEWEST = 4  # batches: for fewer, starting a process and filling it costs more than it saves
_SHARED_MEMORY = Path("/dev/shm")  # in which readers hand over batches; containers have 64 MiB


def count_readers(
    wanted: int | Literal["auto"], n_batches: int, batch_bytes: int, device: torch.device
) -> int:
    """Return the number of processes that read ahead.

    ``auto`` takes none on the CPU, where fit and reader would share the same cores; beside a GPU as
    many as there are cores left, at most `MOST`, and as their batches fit into shared memory.

    Args:
        wanted: a number, or ``auto``.
        n_batches: number of batches to read.
        batch_bytes: size of a batch in bytes.
        device: where batches are worked on.

    >>> cpu = torch.device("cpu")
    >>> count_readers(2, 1, 10**9, cpu), count_readers("auto", 99, 1, cpu)
    (2, 0)
    """
    if wanted != "auto":
        return wanted
    if device.type == "cpu" or n_batches < _FEWEST:
        return 0
    n = min(MOST, _cores() - 1)
    if _SHARED_MEMORY.is_dir():  # one batch of each reader, and the one that is worked on
        n = min(n, shutil.disk_usage(_SHARED_MEMORY).free // max(1, batch_bytes) - 1)
    return max(0, n)


def _cores() -> int:
    """Cores that this process may use, shared with its run's others on this machine."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux
    n = len(allowed(0)) if allowed else os.cpu_count() or 1
    return int(n // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
