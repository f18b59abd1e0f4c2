"""Number of processes that read and prepare the next batches during the present one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

import torch

MAX_READERS = 4  # more readers of one process wait for the same disk
_MIN_BATCHES = 4  # with fewer batches, the start of a process costs more than it saves
_SHARED_MEMORY = Path("/dev/shm")  # readers hand over batches in it; containers have 64 MiB


def count_readers(
    wanted: int | Literal["auto"], n_batches: int, batch_bytes: int, device: torch.device
) -> int:
    """Return the number of processes that read ahead.

    ``auto`` gives none on the CPU, where fit and reader would share the same cores. With a GPU it
    gives one for each core left, at most `MAX_READERS`, if their batches fit into shared memory.

    Args:
        wanted: number that the user sets, or ``auto``.
        n_batches: number of batches to read.
        batch_bytes: size of a batch in bytes.
        device: device of the reconstruction.

    >>> cpu = torch.device("cpu")
    >>> count_readers(2, 1, 10**9, cpu), count_readers("auto", 99, 1, cpu)
    (2, 0)
    """
    if wanted != "auto":
        return wanted
    if device.type == "cpu" or n_batches < _MIN_BATCHES:
        return 0
    n = min(MAX_READERS, _n_cores() - 1)
    if _SHARED_MEMORY.is_dir():  # one batch of each reader, and the one that is worked on
        n = min(n, shutil.disk_usage(_SHARED_MEMORY).free // max(1, batch_bytes) - 1)
    return max(0, n)


def _n_cores() -> int:
    """Return the number of cores for this process; processes of a run share the machine."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux
    n = len(allowed(0)) if allowed else os.cpu_count() or 1
    return int(n // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
