"""Several devices of one machine: a process for each, started by the command line's own.

`reconstruct`: every process takes its share of the slices and keeps them in the run folder; the
first one puts volumes together. `train`: the processes are those of Lightning's strategy ``ddp``.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig

from mrisem.errors import InputError
from mrisem.signals import Interrupted
from mrisem.verbs.jobs import words

RANK, RANKS = "LOCAL_RANK", "WORLD_SIZE"  # as torch and Lightning know them


def rank() -> int:
    """Return this process's number among those of its run, from 0."""
    return int(os.environ.get(RANK, 0))


def count(config: DictConfig) -> int:
    """Return the number of processes that a run takes: one for each of its devices."""
    devices: Any = config.trainer.devices
    if isinstance(devices, ListConfig | list):
        return len(devices)
    if devices == "auto":
        return 1 if config.trainer.accelerator == "cpu" else max(1, torch.cuda.device_count())
    return int(devices)


def alone(config: DictConfig) -> dict[str, Any]:
    """Return the options of a trainer that has one of the run's devices for itself."""
    devices: Any = config.trainer.devices
    if count(config) == 1:
        return {}
    if config.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        return {"devices": 1, "strategy": "auto"}
    mine = rank() if isinstance(devices, int | str) else devices[rank()]
    return {"devices": [mine], "strategy": "auto"}


@contextmanager
def others(verb: str, config: DictConfig) -> Iterator[None]:
    """Run the processes of the other devices beside the block, and wait for their end.

    Raises:
        InputError: one of them failed.
    """
    n = count(config)
    if n == 1 or rank():
        yield
        return
    with _announced(n):
        folder = f"output_dir={config.output_dir}"
        command = [sys.executable, "-m", "mrisem", verb, *words(), folder]
        started = [
            subprocess.Popen(command, env={**os.environ, RANK: str(number)})
            for number in range(1, n)
        ]
        codes = yield from _waited(started, verb)
    if bad := [code for code in codes if code not in (0, 2)]:
        raise InputError(
            f"each of the {n} processes must end well, one ended with {bad[0]} (see above); what "
            "is done is kept, the same command continues"
        )


def _waited(started: list[subprocess.Popen[bytes]], verb: str) -> Generator[None, None, list[int]]:
    """Let the block run; return the processes' exit codes when all have ended."""
    try:
        yield
        return [process.wait() for process in started]
    except Interrupted:
        if verb == "reconstruct":  # a batch that is under way is kept; steps of `train` are not
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait()
        raise
    finally:
        for process in started:  # after an error, or while it waits for one that has ended
            process.kill()
            process.wait()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # another job has processes of its own


@contextmanager
def _announced(n: int) -> Iterator[None]:
    """Tell torch and Lightning of ``n`` processes, of which this is the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {RANKS: str(n), RANK: "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    told["NODE_RANK"] = "0"
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)  # Lightning may have removed it
            if value is not None:
                os.environ[name] = value
