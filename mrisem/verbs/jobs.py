"""Records of jobs in their run folders, and the summary of a sweep.

``<run folder>/.hydra/<verb>/job.json`` holds ``state``, ``exit_code``, ``message``, ``started``
(UTC), ``seconds``, ``command``, ``overrides``, ``seed``, ``commit``, ``versions`` and ``sweep``.
The state is ``running`` until the job ends, so that a killed job is recognised. Then it is
``done``, ``incomplete`` (some scans were skipped), ``interrupted`` (by a signal) or ``failed``.
``error.txt`` beside it holds the traceback of a failure. ``config.yaml`` and ``overrides.yaml``
there belong to the results: a command that was refused does not change them.
``<sweep folder>/sweep.json`` lists the jobs of the last multirun.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
import traceback
import uuid
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import mrisem
from mrisem.config.compose import SWEPT, swept_keys
from mrisem.files import reading, remove_partial, write_text
from mrisem.verbs.tables import show_pairs

RAY = "hydra_plugins.mrisem_ray"  # module name under which `mrisem.verbs.ray_launcher` registers
SWEEP = "MRISEM_SWEEP"  # variable with the multirun's name, inherited by processes of its jobs
STATES = {0: "done", 1: "failed", 2: "incomplete", 130: "interrupted", 143: "interrupted"}
_PACKAGES = ("torch", "numpy", "transformers", "pytorch-lightning", "hydra-core", "fastmri")


class JobRecord:
    """Record of a job that begins now, in the Hydra application that runs it.

    It is written once the command is accepted (`accept`). In a sweep it is written at once, since
    the summary also lists refused jobs.

    Args:
        verb: verb that is run.
        folder: the run folder.
    """

    current: JobRecord | None = None  # record of the job that this process runs

    def __init__(self, verb: str, folder: Path) -> None:
        self.run, self.folder = folder, hydra_folder(folder, verb)
        self._began = time.monotonic()
        self._accepted = in_sweep()
        overrides = words()
        self.facts: dict[str, Any] = {
            "verb": verb,
            "state": "running",
            "exit_code": None,
            "message": None,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": None,
            "command": shlex.join(["mrisem", verb, *overrides]),
            "overrides": overrides,
            "seed": None,
            "commit": commit(),
            "versions": versions(),
            "sweep": os.environ.get(SWEEP) if in_sweep() else None,
        }
        JobRecord.current = self
        self._write()

    def accept(self) -> None:
        """Write the record from now on: the command was accepted."""
        self._accepted = True
        self._write()

    def end(self, exit_code: int, error: BaseException | None = None, message: str = "") -> None:
        """Write the end of the job; after an error, remove a new folder without results.

        Args:
            exit_code: one of `STATES`.
            error: error that ended it, whose traceback is written; None: no error.
            message: the error in one line.
        """
        JobRecord.current = None
        seconds = round(time.monotonic() - self._began, 1)
        self.facts |= {"state": STATES[exit_code], "exit_code": exit_code, "seconds": seconds}
        self.facts["message"] = message or None
        try:
            self._write("" if error is None else "".join(traceback.format_exception(error)))
        except OSError as failure:  # probably the full disk that ended the job
            print(
                f"mrisem: the job's end cannot be written to {self.folder}: {failure}",
                file=sys.stderr,
            )
        if error is not None and SweepSummary.new_folder and not in_sweep():
            self._remove_empty()

    def _remove_empty(self) -> None:
        """Remove the folder that was made for this job, if it holds no results."""
        no_results = {".hydra", ".lock", "record.json", f"{self.facts['verb']}.log"}
        if self.run.is_dir() and {path.name for path in self.run.iterdir()} <= no_results:
            shutil.rmtree(self.run)

    def _write(self, error: str = "") -> None:
        """Write the record, and the traceback of an error beside it."""
        if not self._accepted:
            return
        (self.folder / "error.txt").unlink(missing_ok=True)
        if error:
            write_text(self.folder / "error.txt", error)
        write_text(self.folder / "job.json", json.dumps(self.facts, indent=1) + "\n")


def words() -> list[str]:
    """Return the overrides that repeat this job alone; a job of a sweep gets its own folder.

    Empty outside a Hydra application.
    """
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    # joblib's launcher escapes the braces of ${...}
    task = [re.sub(r"\\([{}])", r"\1", word) for word in hydra.overrides.task]
    if not in_sweep():
        return task
    written = [word.partition("=")[2] for word in task if word.startswith("output_dir=")]
    folder = Path(*written[-1:] or [hydra.sweep.dir]) / hydra.sweep.subdir
    return [*(word for word in task if not word.startswith("output_dir=")), f"output_dir={folder}"]


def hydra_folder(folder: Path, verb: str) -> Path:
    """Return the folder of a verb's configuration and `JobRecord` in a run folder."""
    return folder / ".hydra" / verb


def accept(config: DictConfig, verb: str) -> None:
    """Write the resolved configuration and its overrides: the command is accepted."""
    folder = hydra_folder(Path(config.output_dir), verb)
    remove_partial(folder)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    write_text(folder / "overrides.yaml", yaml.safe_dump(words(), allow_unicode=True))
    if JobRecord.current is not None:
        JobRecord.current.accept()


class SweepSummary(Callback):
    """Callback that prints and writes the outcome of all jobs at the end of a multirun.

    Hydra makes it from `conf/base.yaml`.

    Attributes:
        exit_code: worst exit code of the last multirun; None: there was none.
        under_way: configuration of a multirun that is not summed up yet; None: there is none.
        new_folder: whether Hydra makes the folder of a single run.
    """

    exit_code: int | None = None
    under_way: DictConfig | None = None
    new_folder = False

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note whether the run folder exists."""
        HydraConfig.instance().set_config(config)  # the folder's name refers to Hydra's keys
        SweepSummary.new_folder = not Path(config.hydra.run.dir).exists()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the multirun, for the processes of its jobs."""
        os.environ[SWEEP] = uuid.uuid4().hex
        os.environ[SWEPT] = ",".join(sorted(swept_keys(config)))
        SweepSummary.under_way = config
        if config.hydra.launcher.get("_target_") == f"{RAY}.RayLauncher":
            import_module("mrisem.verbs.ray_launcher").register()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the summary and write ``sweep.json``; Hydra calls it if no launcher raised."""
        SweepSummary.under_way = None
        folder = Path(config.hydra.sweep.dir)
        jobs = read_jobs(folder, os.environ.pop(SWEEP))
        for job in jobs:
            if job["state"] == "running":  # a killed process writes no end
                job |= {"state": "failed", "message": "ended without a record: killed?"}
        counts = {state: sum(job["state"] == state for job in jobs) for state in STATES.values()}
        counts = {state: n for state, n in counts.items() if n or state != "interrupted"}
        bad = [_outcome(job) for job in jobs if job["state"] != "done"]
        print(f"{len(jobs)} jobs: {count_text(counts)}", flush=True)
        if bad:
            show_pairs(bad, [f"  {': '.join(outcome)}" for outcome in bad])
        facts = {"command": _command(config), "counts": counts, "jobs": jobs}
        write_text(folder / "sweep.json", json.dumps(facts, indent=1) + "\n")
        SweepSummary.exit_code = 1 if counts["failed"] else 2 if counts["incomplete"] else 0


def count_text(counts: dict[str, int]) -> str:
    """Return counts as text, without those of zero.

    >>> count_text({"done": 7, "failed": 1, "incomplete": 0})
    '7 done, 1 failed'
    """
    return ", ".join(f"{n} {state}" for state, n in counts.items() if n) or "none begun"


def read_jobs(folder: Path, sweep: str) -> list[dict[str, Any]]:
    """Return the records of the jobs of one multirun, each with its ``folder``, by folder."""
    jobs = []
    for file in sorted(folder.rglob("job.json")):
        with reading(file, "the record of a job", "remove it"):
            facts = dict(json.loads(file.read_text(encoding="utf-8")))
        if facts.get("sweep") == sweep:  # the folder may hold jobs of earlier multiruns
            kept = ("state", "exit_code", "message", "seconds", "overrides")
            job_folder = file.parents[2].relative_to(folder).as_posix()
            jobs.append({"folder": job_folder} | {key: facts[key] for key in kept})
    return jobs


def in_sweep() -> bool:
    """Return whether this Hydra application is a job of a multirun."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def commit() -> str | None:
    """Return the commit of the source, with a + if files differ; None: no git checkout."""
    root = Path(mrisem.__file__).parents[1]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "--short", "HEAD") + ("+" if changed else "")) or None


def versions() -> dict[str, str]:
    """Return the versions on which a result depends."""
    own = {"python": platform.python_version(), "mrisem": mrisem.__version__}
    return own | {name: metadata.version(name) for name in _PACKAGES}


def _command(config: DictConfig) -> str:
    """Return the command line of a multirun."""
    name = config.hydra.job.name
    return shlex.join(["mrisem", name, "--multirun", *config.hydra.overrides.task])


def _outcome(job: dict[str, Any]) -> tuple[str, str]:
    """Return the state of a job, and its folder with its message."""
    return job["state"], f"{job['folder']}: {job['message'] or 'some scans were skipped'}"
