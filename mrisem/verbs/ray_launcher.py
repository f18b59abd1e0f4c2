"""Launcher ``hydra/launcher=ray``, which runs the jobs of a multirun as tasks of Ray.

The published hydra-ray-launcher starts clusters in a cloud and needs older releases of Ray.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from mrisem.errors import InputError
from mrisem.signals import Interrupted, hold, release
from mrisem.verbs.jobs import RAY, SWEEP, read_jobs

_POLL = 0.3  # seconds between two looks at the tasks


class RayLauncher(Launcher):
    """Launcher of jobs as tasks of Ray; a killed job does not stop the others.

    Args:
        num_cpus: number of cores of a job.
        num_gpus: number of GPUs of a job; with a fraction, jobs share a GPU.
        init: arguments of ``ray.init``, unless Ray runs in this process already.
    """

    def __init__(self, num_cpus: float, num_gpus: float, init: Mapping[str, Any]) -> None:
        self.resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}
        self.init = {"logging_level": "warning", **init}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Store the context of the jobs (Hydra calls it before `launch`)."""
        self.context, self.function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run jobs and wait for all of them.

        Raises:
            InputError: when Ray is not installed.
            ray.exceptions.RayError: when the process of a job was killed.
        """
        ray = _import_ray()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        if not ray.is_initialized():
            handler = signal.getsignal(signal.SIGTERM)
            ray.init(**self.init)
            # Ray's own handler would end the sweep without its summary
            signal.signal(signal.SIGTERM, handler)
        job = self.context, self.config, self.function, Singleton.get_state()
        # One pickle keeps references between its parts. It is opened in the jobs' processes, once
        # their environment is set.
        shared = ray.put(ray.cloudpickle.dumps(job))
        started = [
            # no retry of a killed job: the same command continues it
            ray.remote(max_retries=0, **self.resources)(_run).remote(
                shared, _environment(), str(Path.cwd()), number, list(words)
            )
            for number, words in enumerate(job_overrides, initial_job_idx)
        ]
        _wait(ray, started, folder)
        return [ray.get(task) for task in started]


def register() -> None:
    """Register the launcher with Hydra, which imports launchers from hydra_plugins only."""
    try:
        parent = import_module("hydra_plugins")
    except ImportError:  # no other plugin is installed
        parent = sys.modules["hydra_plugins"] = ModuleType("hydra_plugins")
    sys.modules[RAY] = sys.modules[__name__]
    setattr(parent, RAY.rpartition(".")[2], sys.modules[__name__])
    RayLauncher.__module__ = RAY
    Plugins.instance().register(RayLauncher)


def _import_ray() -> Any:
    """Import Ray."""
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # equal lines of several jobs all count
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"hydra/launcher=ray needs the package ray, got none that can be imported ({error}); "
            "pip install 'mrisem[ray]'"
        ) from error
    return ray


def _environment() -> dict[str, str]:
    """Return the variables of this sweep for the jobs' processes, which may be older than it."""
    return {k: v for k, v in os.environ.items() if k.startswith(("MRISEM_", "HYDRA_"))}


def _wait(ray: Any, started: list[Any], folder: Path) -> None:
    """Wait for jobs; on a signal, end them too, each after its present batch."""
    waiting = started
    try:
        while waiting := _unfinished(ray, waiting):
            time.sleep(_POLL)
    except Interrupted:
        for task in waiting:
            ray.cancel(task, force=False)  # raises KeyboardInterrupt in the task's process
        # Ray does not wait for cancelled tasks
        while any(job["state"] == "running" for job in read_jobs(folder, os.environ[SWEEP])):
            time.sleep(_POLL)
        raise


def _unfinished(ray: Any, tasks: list[Any]) -> list[Any]:
    """Return the tasks that still run."""
    hold()  # signals wait: an exception inside Ray's code would break its state
    _, running = ray.wait(tasks, num_returns=len(tasks), timeout=0)
    release()
    return list(running)


def _run(
    shared: bytes, environment: Mapping[str, str], folder: str, number: int, words: list[str]
) -> JobReturn | None:
    """Run one job in a process of Ray; None: it was interrupted."""
    import ray

    os.environ.update(environment)
    os.chdir(folder)
    context, config, function, singletons = ray.cloudpickle.loads(shared)
    setup_globals()
    Singleton.set_state(singletons)
    job = context.config_loader.load_sweep_config(config, words)
    with open_dict(job):
        job.hydra.job.id = f"{job.hydra.job.name}_{number}"
        job.hydra.job.num = number
    HydraConfig.instance().set_config(job)
    try:
        return run_job(
            hydra_context=context,
            config=job,
            task_function=function,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except Interrupted:  # the job's record holds it
        return None
