"""Run of a verb as a Hydra application: its overrides, jobs, errors and exit code."""

from __future__ import annotations

import errno
import gc
import logging
import os
import sys
import traceback
import warnings
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import hydra
import yaml
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mrisem.config.choices import CONF
from mrisem.config.compose import prepare, written_keys
from mrisem.config.overrides import adds, parse, quote_paths, repair
from mrisem.errors import InputError
from mrisem.progress import close_all
from mrisem.signals import Interrupted, listen, release
from mrisem.verbs.jobs import JobRecord, SweepSummary, accept, in_sweep
from mrisem.verbs.memory import keep_freed_memory
from mrisem.verbs.quiet import NOISE

_SCORES = "mrisem.verbs.scores"
_VALUE_FLAGS = ("--cfg", "-c", "--package", "-p", "--config-dir", "-cd")  # flags before a value
# Errors of the user's input: they are one line. Others end with their class, as faults of the code.
_EXPECTED = (InputError, HydraException, OmegaConfBaseException, yaml.YAMLError, OSError)
_PACKAGE_YAML = {"hydra", "main", "schema"}  # providers in Hydra's search path, without the user's
# may refuse their folder, or write nothing
_ACCEPT_THEMSELVES = ("train", "adapt", "compress", "reconstruct", "doctor")
_FIXES = {
    errno.ENOSPC: "free some space, then the same command continues",
    errno.EROFS: "choose a folder that may be written, such as another output_dir",
    errno.EACCES: "choose a folder that may be written, such as another output_dir",
    errno.EEXIST: "output_dir must be a folder; choose another",
    errno.ENOTDIR: "output_dir must be a folder; choose another",
}


def run(verb: str, arguments: list[str], debug: bool, does: str = "") -> int:
    """Run one verb (or a sweep of it) through Hydra and return the exit code.

    Args:
        verb: key of the schema's `VERBS`.
        arguments: words of the command line after the verb.
        debug: whether errors come with their traceback.
        does: sentence on the verb, for its help.
    """
    codes: list[int] = []

    def job(config: DictConfig) -> float | None:
        code, score = _run_job(verb, config, debug)
        codes.append(code)
        return score

    SweepSummary.exit_code = SweepSummary.under_way = None
    try:
        if _flags(verb, arguments).help:
            print(_help(verb, does, arguments))
            return 0
        _start(verb, arguments, job)
    except _EXPECTED as error:
        return _report(verb, error, debug)
    except Interrupted as stop:
        if SweepSummary.under_way is not None:  # Hydra does not call it after an error
            SweepSummary().on_multirun_end(SweepSummary.under_way)
        message = f"interrupted by {stop}: {stop.kept}; the same command continues"
        print(f"mrisem {verb}: {message}", file=sys.stderr)
        return stop.exit_code
    except Exception as error:
        if SweepSummary.under_way is None:
            raise
        # a launcher fails when one of its processes was killed: the other jobs are summed up
        code = _report(verb, error, debug)
        SweepSummary().on_multirun_end(SweepSummary.under_way)
        return code
    if SweepSummary.exit_code is not None:  # jobs may have run in other processes
        return SweepSummary.exit_code
    return max(codes, key=(0, 2, 1).index, default=0)  # an error outweighs skipped scans


def complete(verb: str, action: list[str]) -> int:
    """Print the shell's completions for a verb; nothing for a line that is not yet valid.

    Args:
        verb: verb of the line.
        action: words such as ``query=bash``; ``COMP_LINE`` holds the line without the verb.
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
    """Start Hydra, which reads ``sys.argv``."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints errors itself, and exits
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=verb)(job)()


def _mode(self: Hydra, config_name: str | None, overrides: list[str]) -> RunMode | None:
    """Replace `Hydra.get_mode`, which composes the whole configuration to read ``hydra.mode``.

    Only an override that names Hydra, or YAML files of others, can set that key. Otherwise the mode
    is None, as in a configuration that leaves it to ``--multirun``.
    """
    providers = {entry.provider for entry in self.config_loader.get_search_path().get_path()}
    if providers <= _PACKAGE_YAML and not any("hydra" in word for word in overrides):
        return None
    mode: RunMode | None = _composed_mode(self, config_name, overrides)
    return mode


def _start(verb: str, arguments: list[str], job: Callable[[DictConfig], float | None]) -> None:
    """Start Hydra with the user's words, repaired (`repair`) if Hydra refuses them.

    Raises:
        InputError: when an override is malformed or its option unknown.
    """
    multirun = "--multirun" in arguments or "-m" in arguments
    words = quote_paths(arguments, multirun)
    indices = _override_indices(words)
    # Composing takes most of the time of `--cfg job`: words that Hydra accepts are composed once.
    # Hydra would accept any option after a plus, and would check those of a sweep only when its
    # jobs run. Such words are checked, and repaired, first.
    if not (multirun or adds(words[index] for index in indices)):
        try:
            sys.argv = [f"mrisem {verb}", *words]
            _hydra_main(verb, job)
            return
        except ConfigCompositionException:
            if SweepSummary.under_way is not None:  # raised by a job, which must not run again
                raise
    folders = _config_folders(arguments)
    overrides = [words[index] for index in indices]
    for index, text in zip(indices, repair(verb, overrides, CONF, folders), strict=True):
        words[index] = text
    sys.argv = [f"mrisem {verb}", *words]
    _hydra_main(verb, job)


def _flags(verb: str, arguments: list[str]) -> Namespace:
    """Return Hydra's flags on the command line.

    Raises:
        InputError: when there is no such flag, or it lacks its value.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise InputError(f"{message}; see mrisem {verb} --help")

    parser.error = refuse  # type: ignore[method-assign]  # argparse would exit with code 2
    indices = _override_indices(arguments)
    flags, unknown = parser.parse_known_args(
        [word for index, word in enumerate(arguments) if index not in indices]
    )
    if unknown:
        raise InputError(
            "a flag must be --help, --cfg job, --multirun, --config-dir DIR or --debug, got "
            f"{unknown[0]}; write an option without dashes, as key=value"
        )
    return flags


def _help(verb: str, does: str, arguments: list[str]) -> str:
    """Return the help of a verb; its defaults follow the overrides."""
    from mrisem.config.help import help_text

    words = quote_paths(arguments, multirun=False)
    overrides = [words[index] for index in _override_indices(words)]
    return help_text(verb, does, overrides, _config_folders(arguments))


def _config_folders(arguments: list[str]) -> list[str]:
    """Return the folders of YAML files that follow the flag ``--config-dir``."""
    return [
        str(Path(value).expanduser().resolve())
        for flag, value in pairwise(arguments)
        if flag in ("--config-dir", "-cd")
    ]


def _override_indices(words: list[str]) -> list[int]:
    """Return the indices of the overrides among a command's words."""
    return [
        index
        for index, (before, word) in enumerate(zip(["", *words], words, strict=False))
        if not word.startswith("-") and before not in _VALUE_FLAGS
    ]


def _run_job(verb: str, config: DictConfig, debug: bool) -> tuple[int, float | None]:
    """Run one job and record its end; in a sweep no error stops the other jobs.

    Returns:
        exit code; and the score that ``returns`` names, None without it or after a failure.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    record = JobRecord(verb, folder)
    listen()  # again: the job may run in a process of a launcher
    warnings.showwarning = _print_warning
    try:
        config = prepare(verb, config, written_keys(parse(HydraConfig.get().overrides.task)))
        config.output_dir, record.facts["seed"] = str(folder), config.seed
        module = import_module(f"mrisem.verbs.{verb}")
        gc.enable()  # switched off during imports by mrisem.__main__
        keep_freed_memory()
        _silence_libraries()  # after Lightning's import, which sets its own level
        if verb not in _ACCEPT_THEMSELVES:
            accept(config, verb)
        code: int = module.run(config)
        score = import_module(_SCORES).mean_score(config) if config.get("returns") else None
    except Interrupted as stop:
        record.end(stop.exit_code, message=f"interrupted by {stop}: {stop.kept}")
        raise
    except Exception as error:
        release()  # a library may have caught the interruption, and raised this error instead
        is_expected = isinstance(error, _EXPECTED)
        record.end(1, error, _one_line(error))
        if not (is_expected or in_sweep()):
            raise
        return _report(verb, error, debug), None
    finally:
        close_all()
        _close_logs()
    record.end(code)
    return code, score


def _close_logs() -> None:
    """Close the log file of the job, so that messages of the next job do not go there."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, logging.FileHandler)]:
        root.removeHandler(handler)
        handler.close()


def _print_warning(message: Warning | str, *where: object, **more: object) -> None:
    """Print a warning in one line, without its line of code."""
    print(f"mrisem: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _silence_libraries() -> None:
    """Silence Lightning's remarks on hardware, its products and its dependencies, and `NOISE`."""
    logging.raiseExceptions = False  # else a log file on a full disk prints a traceback
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)


def _report(verb: str, error: BaseException, debug: bool) -> int:
    """Print an error in one line on stderr and return exit code 1."""
    if debug:
        traceback.print_exception(error)
    print(f"mrisem {verb}: {_one_line(error)}", file=sys.stderr)
    return 1


def _one_line(error: BaseException) -> str:
    """Return an error's message in one line; an unexpected error begins with its class."""
    cause: BaseException | None = error
    while cause is not None:  # Hydra wraps errors of constructors into its own
        if isinstance(cause, InputError):
            error = cause
            break
        cause = cause.__cause__ or cause.__context__
    message = " ".join(str(error).split("Config search path:")[0].split())
    if isinstance(error, OSError) and error.errno in _FIXES:
        message = f"{error.filename or 'a file'}: {error.strerror}; {_FIXES[error.errno]}"
    return message if isinstance(error, _EXPECTED) else f"{type(error).__name__}: {message}"


_composed_mode, Hydra.get_mode = Hydra.get_mode, _mode  # type: ignore[method-assign]
