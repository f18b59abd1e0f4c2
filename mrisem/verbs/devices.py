"""Several devices: a process for each, which share one run.

The command line's own process starts the others of its machine. On several machines torchrun or
srun starts all of them (docs/clusters.md). `reconstruct`: every process takes its share of the
slices and keeps them in the run folder; the first one puts volumes together. `train`: the processes
are those of Lightning's strategy ``ddp``.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

from mrisem.errors import InputError
from mrisem.signals import Interrupted
from mrisem.verbs.gathering import gathered
from mrisem.verbs.jobs import in_sweep, words

STARTED = "MRISEM_PROCESS"  # number of a process that another one of its run has started
_END_WELL = "what is done is kept, the same command continues"


@dataclass(frozen=True)
class Place:
    """Which of a run's processes this is.

    Args:
        rank: number among all, from 0; the first one writes what is written once.
        local: number among those of this machine, from 0.
        n: number of processes.
        by: who has started the others: ``mrisem``, ``torchrun`` (or another that sets ``RANK``), or
            ``srun``.
    """

    rank: int
    local: int
    n: int
    by: str


def find_place(config: DictConfig) -> Place:
    """Return this process's place in the run of a configuration.

    Raises:
        InputError: the processes that were started are not those that the options ask for.
    """
    environment = os.environ
    number, n_steps = environment.get(STARTED), environment.get("SLURM_STEP_NUM_TASKS", "1")
    if number is not None:
        return Place(int(number), int(number), count(config), "mrisem")
    if int(environment.get("WORLD_SIZE", 1)) > 1 and "RANK" in environment:
        if "LOCAL_RANK" not in environment:
            raise InputError(
                "RANK and WORLD_SIZE need LOCAL_RANK, the process's number on its machine, got "
                "none; start the processes with torchrun or srun"
            )
        rank, local, n = (int(environment[k]) for k in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        place = Place(rank, local, n, "torchrun")
    elif int(n_steps) > 1:  # of this srun; SLURM_NTASKS is there in a batch script, too
        rank, local = (int(environment[f"SLURM_{k}"]) for k in ("PROCID", "LOCALID"))
        place = Place(rank, local, int(n_steps), "srun")
    elif config.trainer.get("num_nodes", 1) > 1:
        raise InputError(
            f"trainer.num_nodes={config.trainer.num_nodes} needs a process for each device of each "
            "machine, got this one alone; start them with torchrun or srun (docs/clusters.md)"
        )
    else:
        return Place(0, 0, count(config), "mrisem")
    _check_started(config, place)
    return place


def _check_started(config: DictConfig, place: Place) -> None:
    """Refuse what processes that somebody else has started cannot do."""
    if HydraConfig.initialized() and in_sweep():
        raise InputError(
            f"a sweep is started by one process, {place.by} has started {place.n}; start each job "
            "by itself, or use hydra/launcher=submitit_slurm with tasks_per_node=1"
        )
    asked = count(config) * config.trainer.get("num_nodes", 1)
    if asked not in (1, place.n):
        raise InputError(
            f"{place.by} must start trainer.devices x trainer.num_nodes = {asked} processes, got "
            f"{place.n}; set both as they were started"
        )


def count(config: DictConfig) -> int:
    """Return the number of devices that a run takes on this machine."""
    devices: Any = config.trainer.devices
    if isinstance(devices, ListConfig | list):
        return len(devices)
    if devices == "auto":
        return 1 if config.trainer.accelerator == "cpu" else max(1, torch.cuda.device_count())
    return int(devices)


def alone(config: DictConfig, place: Place) -> dict[str, Any]:
    """Return the options of a trainer that has one of the run's devices for itself."""
    # named, because Lightning takes any process in a job of SLURM for one that srun has started
    options = _plugins(config, LightningEnvironment)
    if place.n == 1:
        return options
    options |= {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    if config.trainer.accelerator != "cpu" and torch.cuda.is_available():
        devices: Any = config.trainer.devices
        if isinstance(devices, ListConfig | list) and len(devices) > 1:
            options["devices"] = [devices[place.local]]
        else:  # srun may have given each task a device of its own
            options["devices"] = [place.local % torch.cuda.device_count()]
    return options


def together(config: DictConfig, place: Place) -> dict[str, Any]:
    """Return the options of a trainer that is one of several which train together.

    Raises:
        InputError: other processes were started than Lightning will wait for.
    """
    if place.n == 1:
        return _plugins(config, LightningEnvironment)
    nodes = config.trainer.get("num_nodes", 1)
    if count(config) * nodes != place.n:
        raise InputError(
            f"a training takes trainer.devices x trainer.num_nodes processes, got {count(config)} "
            f"x {nodes} and {place.n} that {place.by} has started; set both as they were started"
        )
    kinds: dict[str, Callable[[], ClusterEnvironment]] = {
        "mrisem": LightningEnvironment,
        "torchrun": TorchElasticEnvironment,
        "srun": SLURMEnvironment,
    }
    # the data set knows this process's share, in an order that a continued training has, too
    return {"use_distributed_sampler": False} | _plugins(config, kinds[place.by])


def _plugins(config: DictConfig, make: Callable[[], ClusterEnvironment]) -> dict[str, Any]:
    return {} if config.trainer.get("plugins") else {"plugins": [make()]}


@contextmanager
def others(verb: str, config: DictConfig, place: Place) -> Iterator[None]:
    """Run the processes of the other devices beside the block, and wait for their end.

    Raises:
        InputError: one of them failed.
    """
    if place.n == 1:
        yield
    elif place.by != "mrisem":
        with gathered(Path(config.output_dir), place.n) if verb == "reconstruct" else _closed():
            yield
    else:
        with _announced(place.n), _closed():
            codes = yield from _waited(_start(verb, config, place.n), verb)
        if bad := [code for code in codes if code not in (0, 2)]:
            raise InputError(
                f"each of the {place.n} processes must end well, one ended with {bad[0]} (see "
                f"above); {_END_WELL}"
            )


def _start(verb: str, config: DictConfig, n: int) -> list[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "mrisem", verb, *words(), f"output_dir={config.output_dir}"]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, STARTED: str(number), "LOCAL_RANK": str(number)},
            stdin=subprocess.PIPE,  # see `end_with_the_first`
            start_new_session=True,  # signals come from the first one, once
        )
        for number in range(1, n)
    ]


def end_with_the_first(place: Place) -> None:
    """Let this process end when the one that has started it was killed: its pipe is closed then."""
    if place.rank and place.by == "mrisem":

        def wait() -> None:
            os.read(0, 1)  # returns when the pipe's other end is closed
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


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
            if process.stdin is not None:
                process.stdin.close()


@contextmanager
def _closed() -> Iterator[None]:
    """Leave torch's group of processes at the end: another job has one of its own."""
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@contextmanager
def _announced(n: int) -> Iterator[None]:
    """Tell torch and Lightning of ``n`` processes, of which this is the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"WORLD_SIZE": str(n), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": str(n), "NODE_RANK": "0"}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)  # Lightning may have removed it
            if value is not None:
                os.environ[name] = value
