"""Running a verb as a Hydra application: its words, its jobs, its errors, its exit code."""

from __future__ import annotations

import errno
import gc
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mrisem.config.compose import CONF, prepare, written_keys
from mrisem.config.overrides import parse, quote_paths, repair
from mrisem.errors import InputError
from mrisem.signals import Interrupted, listen, release
from mrisem.verbs.jobs import JobRecord, SweepSummary, accept, in_sweep
from mrisem.verbs.quiet import NOISE

_SCORES = "mrisem.verbs.scores"
_VALUE_FLAGS = ("--cfg", "-c", "--package", "-p", "--config-dir", "-cd")  # of Hydra: take a word
_EXPECTED = (InputError, HydraException, OmegaConfBaseException, yaml.YAMLError, OSError)
_ACCEPT_THEMSELVES = ("train", "reconstruct", "doctor")  # may refuse their folder, or write nothing
_FIXES = {
    errno.ENOSPC: "free some space, then the same command continues",
    errno.EROFS: "choose a place that may be written, such as another output_dir",
    errno.EACCES: "choose a place that may be written, such as another output_dir",
    errno.EEXIST: "output_dir must be a folder; choose another",
    errno.ENOTDIR: "output_dir must be a folder; choose another",
}


def run(verb: str, arguments: list[str], debug: bool) -> int:
    """Run one verb (or a sweep of it) through Hydra and return the exit code."""
    codes: list[int] = []

    def job(config: DictConfig) -> float | None:
        code, score = _run_job(verb, config, debug)
        codes.append(code)
        return score

    SweepSummary.exit_code = SweepSummary.under_way = None
    try:
        _start(verb, arguments, job)
    except _EXPECTED as error:
        return _report(verb, error, debug)
    except Interrupted as stop:
        if SweepSummary.under_way is not None:
            SweepSummary().on_multirun_end(SweepSummary.under_way)
        said = f"interrupted by {stop}: {stop.kept}; the same command continues"
        print(f"mrisem {verb}: {said}", file=sys.stderr)
        return stop.exit_code
    except Exception as error:
        if SweepSummary.under_way is None:
            raise
        code = _report(verb, error, debug)  # of a launcher, one of whose processes was killed
        SweepSummary().on_multirun_end(SweepSummary.under_way)
        return code
    if SweepSummary.exit_code is not None:  # jobs may have run in other processes
        return SweepSummary.exit_code
    return max(codes, key=(0, 2, 1).index, default=0)


def complete(verb: str, action: list[str]) -> int:
    """Answer the shell's completion for a verb; print nothing for a line that is not yet valid.

    Args:
        verb: verb that is on the line.
        action: such as ``query=bash``; the line, without the verb, is in ``COMP_LINE``.
    """
    sys.argv = ["mrisem", "--shell-completion", *action]
    try:
        _hydra_main(verb, lambda config: None)
    except ValueError as error:  # no such shell
        print(f"mrisem: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except HydraException:
        return 1
    return 0


def _hydra_main(verb: str, job: Callable[[DictConfig], float | None]) -> None:
    """Start Hydra, which reads ``sys.argv``; what it raises arrives here, to be said in a line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=verb)(job)()


def _start(verb: str, arguments: list[str], job: Callable[[DictConfig], float | None]) -> None:
    """Start Hydra with the user's words, as `repair` writes them where Hydra refuses them.

    Composing takes most of the time of ``--cfg job``, so that it is not done twice for words that
    Hydra takes as they are. It would take any option behind a plus, and in a sweep it composes when
    jobs run: then the words are repaired, or refused, first.

    Raises:
        InputError: when an override is malformed or its option unknown.
    """
    multirun = "--multirun" in arguments or "-m" in arguments
    words = quote_paths(arguments, multirun)
    places = _places(words)
    adds = any(override.is_add() for override in parse(words[index] for index in places))
    if not (multirun or adds):
        try:
            sys.argv = [f"mrisem {verb}", *words]
            _hydra_main(verb, job)
            return
        except ConfigCompositionException:
            if SweepSummary.under_way is not None:  # of a job: it is not begun again
                raise
    folders = [
        str(Path(value).expanduser().resolve())
        for flag, value in pairwise(arguments)
        if flag in ("--config-dir", "-cd")
    ]
    overrides = [words[index] for index in places]
    for index, text in zip(places, repair(verb, overrides, CONF, folders), strict=True):
        words[index] = text
    sys.argv = [f"mrisem {verb}", *words]
    _hydra_main(verb, job)


def _places(words: list[str]) -> list[int]:
    """Return the indices of the overrides among a command's words."""
    return [
        index
        for index, (before, word) in enumerate(zip(["", *words], words, strict=False))
        if not word.startswith("-") and before not in _VALUE_FLAGS
    ]


def _run_job(verb: str, config: DictConfig, debug: bool) -> tuple[int, float | None]:
    """Run one job and record what became of it; in a sweep no error stops the others.

    Returns:
        exit code; and the score that ``returns`` asks for, None without it or after a failure.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    record = JobRecord(verb, folder)
    listen()  # in a sweep's own process, too
    try:
        config = prepare(verb, config, written_keys(parse(HydraConfig.get().overrides.task)))
        config.output_dir, record.facts["seed"] = str(folder), config.seed
        module = import_module(f"mrisem.verbs.{verb}")
        gc.enable()  # off while things are imported: mrisem.__main__
        _quieten()  # after Lightning's import, which sets its own level
        if verb not in _ACCEPT_THEMSELVES:
            accept(config, verb)
        code: int = module.run(config)
        score = import_module(_SCORES).mean_score(config) if config.get("returns") else None
    except Interrupted as stop:
        record.end(stop.exit_code, message=f"interrupted by {stop}: {stop.kept}")
        raise
    except Exception as error:
        release()  # a library may have swallowed the interruption that made this error
        expected = isinstance(error, _EXPECTED)
        record.end(1, error, _one_line(error))
        if not (expected or in_sweep()):
            raise
        return _report(verb, error, debug), None
    finally:
        _close_logs()
    record.end(code)
    return code, score


def _close_logs() -> None:
    """Close the job's log file: what another job says does not belong there."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, logging.FileHandler)]:
        root.removeHandler(handler)
        handler.close()


def _say_warning(message: Warning | str, *where: object, **more: object) -> None:
    """Say a warning in one line, without the place in the code."""
    print(f"mrisem: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _quieten() -> None:
    """Silence what Lightning says about hardware, its own products and its dependencies."""
    warnings.showwarning = _say_warning
    logging.raiseExceptions = False  # a log file on a full disk
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)


def _report(verb: str, error: BaseException, debug: bool) -> int:
    """Say an error in one line on stderr and return exit code 1."""
    if debug:
        traceback.print_exception(error)
    print(f"mrisem {verb}: {_one_line(error)}", file=sys.stderr)
    return 1


def _one_line(error: BaseException) -> str:
    """Return an error's message in one line; of one that nobody expected also its kind."""
    cause: BaseException | None = error
    while cause is not None:  # Hydra wraps what a constructor raises
        if isinstance(cause, InputError):
            error = cause
            break
        cause = cause.__cause__ or cause.__context__
    message = " ".join(str(error).split("Config search path:")[0].split())
    if isinstance(error, OSError) and error.errno in _FIXES:
        message = f"{error.filename or 'a file'}: {error.strerror}; {_FIXES[error.errno]}"
    return message if isinstance(error, _EXPECTED) else f"{type(error).__name__}: {message}"
