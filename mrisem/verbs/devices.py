"""Runs on several devices: a process for each device, which share one run folder.

On one machine the process of the command line starts the others. On several machines torchrun or
srun starts all of them (docs/clusters.md). In `reconstruct` each process writes its share of the
slices into the run folder, and the first process joins volumes. In `train` the processes are those
of Lightning's strategy ``ddp``.
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

STARTED = "MRISEM_PROCESS"  # variable with the number of a process that the first one has started
_END_WELL = "what is done is kept, the same command continues"


@dataclass(frozen=True)
class Place:
    """Position of this process among those of its run.

    Args:
        rank: number among all processes, from 0; process 0 writes files of the whole run.
        local: number among the processes of this machine, from 0.
        n: number of processes.
        by: program that has started the others: ``mrisem``, ``torchrun`` (or another that sets
            ``RANK``), or ``srun``.
    """

    rank: int
    local: int
    n: int
    by: str


def find_place(config: DictConfig) -> Place:
    """Return the position of this process among those of the run.

    Raises:
        InputError: when the started processes are not those of the configuration.
    """
    environment = os.environ
    number, n_steps = environment.get(STARTED), environment.get("SLURM_STEP_NUM_TASKS", "1")
    if number is not None:
        return Place(int(number), int(number), count(config), "mrisem")
    if int(environment.get("WORLD_SIZE", 1)) > 1 and "RANK" in environment:
        if "LOCAL_RANK" not in environment:
            raise InputError(
                "RANK and WORLD_SIZE need LOCAL_RANK, the number of the process on its machine, "
                "got none; start the processes with torchrun or srun"
            )
        rank, local, n = (int(environment[k]) for k in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        place = Place(rank, local, n, "torchrun")
    elif int(n_steps) > 1:  # set by srun; SLURM_NTASKS is set in a plain batch script, too
        rank, local = (int(environment[f"SLURM_{k}"]) for k in ("PROCID", "LOCALID"))
        place = Place(rank, local, int(n_steps), "srun")
    elif config.trainer.get("num_nodes", 1) > 1:
        raise InputError(
            "trainer.num_nodes above 1 needs a process for each device of each machine, got "
            f"{config.trainer.num_nodes} and a single process; start them with torchrun or srun "
            "(docs/clusters.md)"
        )
    else:
        return Place(0, 0, count(config), "mrisem")
    _check_started(config, place)
    return place


def _check_started(config: DictConfig, place: Place) -> None:
    """Raise InputError if processes started by torchrun or srun do not fit the configuration."""
    if HydraConfig.initialized() and in_sweep():
        raise InputError(
            f"a sweep must be started by one process, got {place.n} of {place.by}; start each job "
            "by itself, or use hydra/launcher=submitit_slurm with tasks_per_node=1"
        )
    n_configured = count(config) * config.trainer.get("num_nodes", 1)
    if n_configured not in (1, place.n):
        raise InputError(
            f"{place.by} must start trainer.devices x trainer.num_nodes = {n_configured} "
            f"processes, got {place.n}; set both as they were started"
        )


def count(config: DictConfig) -> int:
    """Return the number of devices of a run on this machine."""
    devices: Any = config.trainer.devices
    if isinstance(devices, ListConfig | list):
        return len(devices)
    if devices == "auto":
        return 1 if config.trainer.accelerator == "cpu" else max(1, torch.cuda.device_count())
    return int(devices)


def predict_options(config: DictConfig, place: Place) -> dict[str, Any]:
    """Return options of a trainer that uses one of the devices, apart from the other processes."""
    # named explicitly: Lightning takes any process in a SLURM job for one that srun has started
    options = _plugins(config, LightningEnvironment)
    if place.n == 1:
        return options
    options |= {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    if config.trainer.accelerator != "cpu" and torch.cuda.is_available():
        devices: Any = config.trainer.devices
        if isinstance(devices, ListConfig | list) and len(devices) > 1:
            options["devices"] = [devices[place.local]]
        else:  # modulo, since srun may show each task a single device
            options["devices"] = [place.local % torch.cuda.device_count()]
    return options


def fit_options(config: DictConfig, place: Place) -> dict[str, Any]:
    """Return options of a trainer that trains together with those of the other processes.

    Raises:
        InputError: when Lightning would wait for another number of processes.
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
    # The data set takes this process's share itself, in an order that a continued training repeats.
    return {"use_distributed_sampler": False} | _plugins(config, kinds[place.by])


def _plugins(config: DictConfig, make: Callable[[], ClusterEnvironment]) -> dict[str, Any]:
    """Return the trainer's environment of processes, unless the user configured one.

    Raises:
        InputError: when srun does not say how many tasks a node has.
    """
    if config.trainer.get("plugins"):
        return {}
    try:
        return {"plugins": [make()]}
    except RuntimeError as error:  # of SLURMEnvironment
        raise InputError(
            "srun must be told how many tasks each node has, got --ntasks alone; start it with "
            "--ntasks-per-node=N"
        ) from error


@contextmanager
def other_processes(verb: str, config: DictConfig, place: Place) -> Iterator[None]:
    """Run the processes of the other devices beside the block, and wait for their end.

    Raises:
        InputError: when one of them failed.
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
    """Start the same command once for each further device."""
    command = [sys.executable, "-m", "mrisem", verb, *words(), f"output_dir={config.output_dir}"]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, STARTED: str(number), "LOCAL_RANK": str(number)},
            stdin=subprocess.PIPE,  # its end shows them that this process ended
            start_new_session=True,  # the terminal's signals reach them through this process only
        )
        for number in range(1, n)
    ]


def end_with_the_first(place: Place) -> None:
    """End this process if the process that has started it is killed."""
    if place.rank and place.by == "mrisem":

        def wait() -> None:
            os.read(0, 1)  # returns once the other end of the pipe is closed
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


def _waited(started: list[subprocess.Popen[bytes]], verb: str) -> Generator[None, None, list[int]]:
    """Let the block run; return the exit codes of the processes when all have ended."""
    try:
        yield
        return [process.wait() for process in started]
    except Interrupted:
        # `reconstruct` keeps the batch that it works on; a step of `train` is not kept
        if verb == "reconstruct":
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                process.wait()
        raise
    finally:
        # after an error of the block, or while a process waits for another that has ended
        for process in started:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


@contextmanager
def _closed() -> Iterator[None]:
    """Leave torch's process group at the end, since the next job has a group of its own."""
    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@contextmanager
def _announced(n: int) -> Iterator[None]:
    """Set the variables that tell torch and Lightning of ``n`` processes; this is the first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # the system chooses a free port
        port = str(probe.getsockname()[1])
    variables = {"WORLD_SIZE": str(n), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": str(n)}
    variables |= {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in former.items():
            os.environ.pop(name, None)  # Lightning may have removed it
            if value is not None:
                os.environ[name] = value
