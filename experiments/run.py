"""Answer one question: run its sweeps, score them, report them, keep the result.

python experiments/run.py QUESTION [--scale demo|paper] [--output DIR] [hydra overrides]

`QUESTION/sweep.yaml` says what is run, `scales.yaml` with what data and at what size. Resumable:
what is there is not made again. Each command is printed as it can be typed. Overrides, such as
``hydra/launcher=joblib``, go to every `mrisem reconstruct`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from mrisem.results.rows import read_rows
from mrisem.verbs.jobs import commit

HERE = Path(__file__).parent
MRISEM = Path(sys.executable).with_name("mrisem")
_VARIABLE = re.compile(r"\$(DATA|IMAGES|OUT|START)\b")
_MODEL = re.compile(r"(^| )model=")  # a sweep that names a model takes nothing of the scale's
_STARTS = "warm_start"  # in the question's folder, and in it a folder of each job
_JOB = "${data.name}/${model.name}"


@dataclass(frozen=True)
class Sweep:
    """The commands that answer one question at one scale, as lists of overrides.

    Args:
        data: folder with brain/ and knee/.
        simulate: Overrides of `mrisem simulate`; None: the data are the user's own.
        train: Overrides of `mrisem train --multirun`: warm starts of the question's own.
        reconstruct: Overrides of `mrisem reconstruct --multirun`.
        evaluate: Overrides of `mrisem evaluate`.
        report: Overrides of `mrisem report`.
        threads: Threads of each job, where several run side by side; None: torch's choice.
    """

    data: Path
    simulate: list[str] | None
    train: list[list[str]]
    reconstruct: list[list[str]]
    evaluate: list[str]
    report: list[str]
    threads: int | None


def questions() -> list[str]:
    """Names of all questions: folders with a ``sweep.yaml``."""
    return sorted(file.parent.name for file in HERE.glob("*/sweep.yaml"))


def load_sweep(question: str, scale: str, folder: Path) -> Sweep:
    """Read ``QUESTION/sweep.yaml`` at a scale of `scales.yaml`.

    Args:
        question: one of `questions`.
        scale: demo or paper.
        folder: ``$OUT``. ``$DATA`` is the environment's; else lies beside it, shared by questions,
            or in it where a question simulates scans of its own. ``$IMAGES`` is the environment's.

    Raises:
        SystemExit: when there is no such question or scale, or ``$IMAGES`` is needed and not set.
    """
    scales = yaml.safe_load((HERE / "scales.yaml").read_text(encoding="utf-8"))
    if question not in questions():
        raise SystemExit(f"QUESTION must be one of {', '.join(questions())}, got {question}")
    if scale not in scales:
        raise SystemExit(f"--scale must be one of {', '.join(scales)}, got {scale}")
    own = yaml.safe_load((HERE / question / "sweep.yaml").read_text(encoding="utf-8"))
    at = {"train": [], "simulate": None, "extra": ""} | scales[scale] | own | own.get(scale, {})
    shared = folder if "simulate" in own.get(scale, {}) else folder.parent
    data = Path(os.environ.get("DATA", shared / "data")).resolve()
    variables = {"DATA": str(data), "OUT": str(folder)}
    variables["START"] = f"'{folder}/{_STARTS}/{_JOB}/checkpoints/last.ckpt'"
    if "IMAGES" in os.environ:
        variables["IMAGES"] = str(Path(os.environ["IMAGES"]).resolve())

    def value(variable: re.Match[str]) -> str:
        if variable[1] not in variables:
            raise SystemExit(f"{variable[1]} must name a folder, see {question}/README.md")
        return variables[variable[1]]

    def overrides(*texts: str) -> list[str]:
        return last_wins(shlex.split(_VARIABLE.sub(value, " ".join(texts))))

    return Sweep(
        data=data,
        simulate=None if at["simulate"] is None else overrides(at["simulate"]),
        train=[overrides(text, at["extra"]) for text in at["train"]],
        reconstruct=[
            overrides(data_set, "" if _MODEL.search(text) else at["model"], text, at["extra"])
            for text in at["sweeps"]
            for data_set in ([at["data"]] if isinstance(at["data"], str) else at["data"])
            if _anatomies(text) <= _anatomies(data_set)
        ],
        evaluate=overrides(at.get("evaluate", "")),
        report=overrides(at.get("report", "")),
        threads=at.get("threads"),
    )


def _anatomies(text: str) -> set[str]:
    """Return the data sets that a text chooses; none where it chooses none."""
    chosen = re.search(r"(?:^| )data=(\S+)", text)
    return {*chosen[1].split(",")} if chosen else set()


def last_wins(overrides: list[str]) -> list[str]:
    """Keep the last override of each key, where the first stood.

    >>> last_wins(["a=1", "b=2", "a=3"])
    ['a=3', 'b=2']
    """
    return list({text.split("=", 1)[0]: text for text in overrides}.values())


def run_sweep(sweep: Sweep, folder: Path, more: list[str]) -> int:
    """Run all commands of a question.

    Returns:
        the worst exit code of its multiruns: 1 when a job failed, 2 when scans were skipped.
    """
    if sweep.simulate is not None:
        need(mrisem("simulate", *sweep.simulate, f"output_dir={sweep.data}"))
    for index, overrides in enumerate(sweep.train):
        done = folder / f"train_{index}.done"
        if not done.is_file():
            where = f"output_dir={folder / _STARTS}"
            need(mrisem("train", "--multirun", *overrides, where, f"hydra.sweep.subdir={_JOB}"))
            done.touch()
    where = f"output_dir={folder / 'runs'}"
    borrow(sweep, folder, more)
    codes = [
        mrisem("reconstruct", "--multirun", *last_wins([*overrides, *more]), where)
        for overrides in sweep.reconstruct
    ]
    need(mrisem("evaluate", *sweep.evaluate, where))
    page = (f"runs=[{folder / 'runs'}]", f"title={folder.name}", f"output_dir={folder}")
    need(mrisem("report", *sweep.report, *page))
    return max(codes, key=(0, 2, 1).index)


def jobs_of(overrides: list[str]) -> list[frozenset[str]]:
    """Return the overrides of each job of a multirun; those of Hydra itself are left out.

    >>> sorted(sorted(job) for job in jobs_of(["a=1,2", "b=[3,4]", "hydra/launcher=joblib"]))
    [['a=1', 'b=[3,4]'], ['a=2', 'b=[3,4]']]
    """
    own = [text for text in overrides if not text.startswith("hydra")]
    choices = []
    for override in OverridesParser.create().parse_overrides(own):
        values = [override.input_line]
        if override.is_sweep_override():
            key = override.get_key_element()
            values = [f"{key}={value}" for value in override.sweep_string_iterator()]
        choices.append(values)
    return [frozenset(job) for job in product(*choices)]


def borrow(sweep: Sweep, folder: Path, more: list[str]) -> None:
    """Link runs that another question, wholly answered, has made with the same words."""
    wanted = {job for one in sweep.reconstruct for job in jobs_of(last_wins([*one, *more]))}
    for record in sorted(folder.parent.glob("*/runs/*/.hydra/reconstruct/overrides.yaml")):
        run = record.parents[2]
        mine = folder / "runs" / run.name
        if mine.exists() or not (run.parents[1] / "result.json").is_file():
            continue
        # launchers that write a job's words down escape braces, Hydra's own does not
        made = yaml.safe_load(re.sub(r"\\([{}])", r"\1", record.read_text(encoding="utf-8")))
        if frozenset(text for text in made if not text.startswith("output_dir=")) in wanted:
            shutil.copytree(run, mine, copy_function=os.link)
            print(f"{run.name}: from {run.parents[1].name}")


def mrisem(*arguments: str) -> int:
    """Print a command, run it, and return its exit code."""
    print(f"$ {shlex.join(['mrisem', *arguments])}", flush=True)
    return subprocess.run([MRISEM, *arguments], check=False).returncode


def need(code: int) -> None:
    """Stop when a command that the rest needs has failed."""
    if code:
        raise SystemExit(code)


def result_of(question: str, folder: Path, seconds: float | None) -> dict[str, Any]:
    """What is kept of a run: means, intervals and tests of all scores, and the question's own.

    ``seconds`` is what it took in one go, None where an earlier one had begun.
    """
    summary = json.loads((folder / "runs" / "summary.json").read_text(encoding="utf-8"))
    result = {"question": question, "commit": commit(), "seconds": seconds}
    rows = read_rows(folder / "runs" / "metrics.csv")
    result["fit_seconds"] = round(sum(row["seconds"] for row in rows))
    for key in ("columns", "groups", "methods", "paired_tests", "audit"):
        result[key] = summary[key]
    own = own_module(question, "analyse")
    if own is not None:
        result["own"] = own.analyse(folder)
    # methods may be named by paths in the question's folder, which is not the same elsewhere
    return json.loads(json.dumps(result).replace(f"{folder}/", ""))


def own_module(question: str, name: str) -> ModuleType | None:
    """Load ``QUESTION/NAME.py``, or None where a question needs none."""
    file = HERE / question / f"{name}.py"
    if not file.is_file():
        return None
    spec = spec_from_file_location(f"{question}_{name}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Run, and write ``result.json``; ends with the worst exit code of the multiruns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question")
    parser.add_argument("--scale", default="demo")
    parser.add_argument("--output", type=Path, help="default: outputs/experiments/SCALE/QUESTION")
    arguments, more = parser.parse_known_args()
    default = Path("outputs/experiments") / arguments.scale / arguments.question
    folder = (arguments.output or default).resolve()
    sweep = load_sweep(arguments.question, arguments.scale, folder)
    folder.mkdir(parents=True, exist_ok=True)
    if sweep.threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(sweep.threads))
    started, fresh = time.monotonic(), not (folder / "runs").exists()
    code = run_sweep(sweep, folder, more)
    seconds = round(time.monotonic() - started) if fresh else None
    result = result_of(arguments.question, folder, seconds)
    text = json.dumps(result, indent=1) + "\n"
    (folder / "result.json").write_text(text, encoding="utf-8")
    print(f"{arguments.question}: {folder / 'result.json'}")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
