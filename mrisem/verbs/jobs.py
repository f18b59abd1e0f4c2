"""What became of each job: a record in its run folder, and a summary of a sweep.

``<run folder>/.hydra/<verb>/job.json`` holds ``state`` (``running`` until the job ends, so that a
killed one is seen; then ``done``, ``incomplete``, some scans having been skipped, ``interrupted``
by a signal, or ``failed``), ``exit_code``, ``message``, ``started`` (UTC), ``seconds``,
``command``, ``overrides``, ``seed``, ``commit``, ``versions``, ``sweep``; ``error.txt`` beside it
the traceback of a failure. ``config.yaml`` and ``overrides.yaml`` there are those of the results:
a command that was refused does not touch them.
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

RAY = "hydra_plugins.mrisem_ray"  # name by which `mrisem.verbs.ray_launcher` registers
SWEEP = "MRISEM_SWEEP"  # names the multirun in its jobs' processes, which inherit it
STATES = {0: "done", 1: "failed", 2: "incomplete", 130: "interrupted", 143: "interrupted"}
_PACKAGES = ("torch", "numpy", "transformers", "pytorch-lightning", "hydra-core", "fastmri")


class JobRecord:
    """The record of a job that begins now, in the Hydra application that runs it.

    Nothing is written before the command is accepted (`accept`), but in a sweep, whose summary
    lists the refused ones, too.

    Args:
        verb: what is run.
        folder: the run folder.
    """

    current: JobRecord | None = None  # of this process

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
        """Note that the job runs."""
        self._accepted = True
        self._write()

    def end(self, exit_code: int, error: BaseException | None = None, message: str = "") -> None:
        """Note how the job ended; a folder that was made for it goes, when nothing came of it.

        Args:
            exit_code: one of `STATES`.
            error: what ended it, whose traceback is kept.
            message: the error in one line.
        """
        JobRecord.current = None
        seconds = round(time.monotonic() - self._began, 1)
        self.facts |= {"state": STATES[exit_code], "exit_code": exit_code, "seconds": seconds}
        self.facts["message"] = message or None
        try:
            self._write("" if error is None else "".join(traceback.format_exception(error)))
        except OSError as failure:  # a full disk has ended the job, too
            print(f"mrisem: the end is not noted in {self.folder}: {failure}", file=sys.stderr)
        if error is not None and SweepSummary.new_folder and not in_sweep():
            self._remove_empty()

    def _remove_empty(self) -> None:
        """Remove the folder that was made for this job, where no result is in it."""
        ours = {".hydra", ".lock", "record.json", f"{self.facts['verb']}.log"}
        if self.run.is_dir() and {path.name for path in self.run.iterdir()} <= ours:
            shutil.rmtree(self.run)

    def _write(self, error: str = "") -> None:
        if not self._accepted:
            return
        (self.folder / "error.txt").unlink(missing_ok=True)
        if error:
            write_text(self.folder / "error.txt", error)
        write_text(self.folder / "job.json", json.dumps(self.facts, indent=1) + "\n")


def words() -> list[str]:
    """Return the overrides that make this job again, alone: of a sweep's job with its own folder.

    Empty outside a Hydra application.
    """
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    # launchers escape the braces of ${...}
    task = [re.sub(r"\\([{}])", r"\1", word) for word in hydra.overrides.task]
    if not in_sweep():
        return task
    written = [word.partition("=")[2] for word in task if word.startswith("output_dir=")]
    folder = Path(*written[-1:] or [hydra.sweep.dir]) / hydra.sweep.subdir
    return [*(word for word in task if not word.startswith("output_dir=")), f"output_dir={folder}"]


def hydra_folder(folder: Path, verb: str) -> Path:
    """Return where a run folder keeps a verb's configuration and its `JobRecord`."""
    return folder / ".hydra" / verb


def accept(config: DictConfig, verb: str) -> None:
    """Keep the configuration, resolved, and the words that made it: the run goes on with them."""
    folder = hydra_folder(Path(config.output_dir), verb)
    remove_partial(folder)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    write_text(folder / "overrides.yaml", yaml.safe_dump(words(), allow_unicode=True))
    if JobRecord.current is not None:
        JobRecord.current.accept()


class SweepSummary(Callback):
    """Says at the end of a multirun what became of its jobs, wherever they ran.

    Hydra makes it from `conf/base.yaml`; the worst exit code of the last multirun is in
    ``exit_code``, None when there was none; a multirun's configuration is in ``under_way`` until
    it was summed up.
    """

    exit_code: int | None = None
    under_way: DictConfig | None = None
    new_folder = False  # whether a single run's folder is made by Hydra for it

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """See whether the run folder is there."""
        HydraConfig.instance().set_config(config)  # names of folders refer to it
        SweepSummary.new_folder = not Path(config.hydra.run.dir).exists()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the multirun."""
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
        for job in jobs:  # one that was killed could not say so
            if job["state"] == "running":
                job |= {"state": "failed", "message": "has not said its end: killed?"}
        counts = {state: sum(job["state"] == state for job in jobs) for state in STATES.values()}
        counts = {state: n for state, n in counts.items() if n or state != "interrupted"}
        bad = [job for job in jobs if job["state"] != "done"]
        print(f"{len(jobs)} jobs: {count_text(counts)}", flush=True)
        if bad:
            show_pairs([_told(job) for job in bad], [f"  {': '.join(_told(job))}" for job in bad])
        facts = {"command": _command(config), "counts": counts, "jobs": jobs}
        write_text(folder / "sweep.json", json.dumps(facts, indent=1) + "\n")
        SweepSummary.exit_code = 1 if counts["failed"] else 2 if counts["incomplete"] else 0


def count_text(counts: dict[str, int]) -> str:
    """Return counts in words, those of zero left out.

    >>> count_text({"done": 7, "failed": 1, "incomplete": 0})
    '7 done, 1 failed'
    """
    return ", ".join(f"{n} {state}" for state, n in counts.items() if n) or "none begun"


def read_jobs(folder: Path, sweep: str) -> list[dict[str, Any]]:
    """Return what the jobs of one multirun noted, each with its ``folder``, in order of folders."""
    jobs = []
    for file in sorted(folder.rglob("job.json")):
        with reading(file, "the record of a job", "remove it"):
            facts = dict(json.loads(file.read_text(encoding="utf-8")))
        if facts.get("sweep") == sweep:
            kept = ("state", "exit_code", "message", "seconds", "overrides")
            where = file.parents[2].relative_to(folder).as_posix()
            jobs.append({"folder": where} | {key: facts[key] for key in kept})
    return jobs


def in_sweep() -> bool:
    """Whether this Hydra application is a job of a multirun."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def commit() -> str | None:
    """Commit of the source, with a + when files differ from it; None outside a git checkout."""
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
    found = {"python": platform.python_version(), "mrisem": mrisem.__version__}
    return found | {name: metadata.version(name) for name in _PACKAGES}


def _command(config: DictConfig) -> str:
    name = config.hydra.job.name
    return shlex.join(["mrisem", name, "--multirun", *config.hydra.overrides.task])


def _told(job: dict[str, Any]) -> tuple[str, str]:
    """State of a job, and which one it is with what it said."""
    return job["state"], f"{job['folder']}: {job['message'] or 'some scans were skipped'}"
