"""What became of each job: a record in its run folder, and a summary of a sweep.

``<run folder>/.hydra/<verb>/job.json`` holds ``state`` (``running`` until the job ends, so that a
killed one is seen; then ``done``, ``incomplete``, some scans having been skipped, or ``failed``),
``exit_code``, ``message``, ``started`` (UTC), ``seconds``, ``command``, ``overrides``, ``seed``,
``commit``, ``versions``, ``sweep``; ``error.txt`` beside it the traceback of a failure.
``<sweep folder>/sweep.json`` lists the jobs of the last multirun.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import time
import traceback
import uuid
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

import mrisem

SWEEP = "MRISEM_SWEEP"  # names the multirun in its jobs' processes, which inherit it
STATES = {0: "done", 1: "failed", 2: "incomplete"}
_PACKAGES = ("torch", "numpy", "transformers", "pytorch-lightning", "hydra-core", "fastmri")


class JobRecord:
    """The record of a job that begins now, in the Hydra application that runs it.

    Of a verb without a folder of its own (``hydra.output_subdir=null``) nothing is written.

    Args:
        verb: what is run.
        folder: the run folder.
    """

    def __init__(self, verb: str, folder: Path) -> None:
        hydra = HydraConfig.get()
        self.folder = folder / hydra.output_subdir if hydra.output_subdir else None
        self._began = time.monotonic()
        overrides = list(hydra.overrides.task)
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
        self._write()

    def end(self, exit_code: int, error: BaseException | None = None, message: str = "") -> None:
        """Note how the job ended.

        Args:
            exit_code: 0, 1 or 2.
            error: what ended it, whose traceback is kept.
            message: the error in one line.
        """
        seconds = round(time.monotonic() - self._began, 1)
        self.facts |= {"state": STATES[exit_code], "exit_code": exit_code, "seconds": seconds}
        self.facts["message"] = message or None
        self._write("" if error is None else "".join(traceback.format_exception(error)))

    def _write(self, error: str = "") -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "error.txt").unlink(missing_ok=True)
        if error:
            (self.folder / "error.txt").write_text(error, encoding="utf-8")
        partial = self.folder / "job.json.partial"
        partial.write_text(json.dumps(self.facts, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.folder / "job.json")


class SweepSummary(Callback):
    """Says at the end of a multirun what became of its jobs, wherever they ran.

    Hydra makes it from `conf/base.yaml`; the worst exit code of the last multirun is in
    ``exit_code``, None when there was none; a multirun's configuration is in ``under_way`` until
    it was summed up.
    """

    exit_code: int | None = None
    under_way: DictConfig | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the multirun."""
        os.environ[SWEEP] = uuid.uuid4().hex
        SweepSummary.under_way = config

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the summary and write ``sweep.json``; Hydra calls it if no launcher raised."""
        SweepSummary.under_way = None
        folder = Path(config.hydra.sweep.dir)
        jobs = read_jobs(folder, os.environ.pop(SWEEP))
        for job in jobs:  # one that was killed could not say so
            if job["state"] == "running":
                job |= {"state": "failed", "message": "has not said its end: killed?"}
        counts = {state: sum(job["state"] == state for job in jobs) for state in STATES.values()}
        bad = [job for job in jobs if job["state"] != "done"]
        print("\n".join([f"{len(jobs)} jobs: {count_text(counts)}", *map(_line, bad)]))
        facts = {"command": _command(config), "counts": counts, "jobs": jobs}
        (folder / "sweep.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
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
        facts = json.loads(file.read_text(encoding="utf-8"))
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


def _line(job: dict[str, Any]) -> str:
    return f"  {job['state']}: {job['folder']}: {job['message'] or 'some scans were skipped'}"
