"""Coordination of processes started by torchrun or srun, through locks in the run folder.

A lock ends with the process that holds it, so that nothing remains of an earlier start, and no port
is opened. The folder must lie on a file system that all machines share.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from mrisem.errors import InputError

PATIENCE = 600.0  # seconds within which all processes of one start must appear
_POLL = 0.1  # seconds between two looks at a lock
_END = "what is done is kept, the same command continues"


@contextmanager
def gathered(folder: Path, n: int) -> Iterator[None]:
    """Act as the first of ``n`` processes: let the others begin, and wait until all have ended.

    Args:
        folder: the run folder, which this process has locked and opened.
        n: number of processes.

    Raises:
        InputError: when a process does not appear, or ends before its share is done.
    """
    locks = _locks_folder(folder)
    shutil.rmtree(locks / "ended", ignore_errors=True)  # marks of an earlier start
    others = range(1, n)
    for rank in others:
        if not _wait(partial(_is_held, locks / str(rank)), f"process {rank} of {n}", PATIENCE):
            raise InputError(
                f"all {n} processes must start within {PATIENCE:.0f} s, got none of number {rank}; "
                "see its messages, then start them again"
            )
    with _held(locks / "opened", "the others"):
        yield
        for rank in others:
            _wait(partial(_is_free, locks / str(rank)), f"the share of process {rank}")
    # a killed process frees its lock as well, but leaves no mark
    if missing := [rank for rank in others if not (locks / "ended" / str(rank)).exists()]:
        raise InputError(
            f"each of the {n} processes must end well, {missing[0]} did not (see its messages); "
            f"{_END}"
        )


@contextmanager
def following(folder: Path, rank: int) -> Iterator[None]:
    """Act as a process other than the first: begin when the first has opened the run folder.

    Raises:
        InputError: when the first process has ended, or does not appear.
    """
    locks = _locks_folder(folder)
    with _held(locks / str(rank), f"an earlier process {rank}"):
        began = time.monotonic()

        def is_opened_or_late() -> bool:
            nonlocal began
            # locked by the first process, or by another run for which it waits: no time passes
            if _is_held(folder / ".lock"):
                began = time.monotonic()
            return _is_held(locks / "opened") or time.monotonic() - began > PATIENCE

        _wait(is_opened_or_late, "the first process")
        if not _is_held(locks / "opened"):
            raise InputError(
                f"the first process must open {folder}, it has ended or did not start; see its "
                "messages, then start them again"
            )
        yield
        (locks / "ended").mkdir(exist_ok=True)
        (locks / "ended" / str(rank)).touch()


def _locks_folder(folder: Path) -> Path:
    """Make and return the folder of locks in a run folder."""
    locks = folder / ".processes"
    locks.mkdir(parents=True, exist_ok=True)
    return locks


def _wait(is_reached: Callable[[], bool], event: str, seconds: float = float("inf")) -> bool:
    """Wait for an event and return whether it came; after 20 s, print that this process waits.

    Args:
        is_reached: function that returns whether the event has come.
        event: text on the event, for the message.
        seconds: longest time to wait.
    """
    began, is_announced = time.monotonic(), False
    while not is_reached():
        waited = time.monotonic() - began
        if waited > seconds:
            return False
        if waited > 20 and not is_announced:
            sys.stderr.write(f"mrisem: waits for {event}\n")
            is_announced = True
        time.sleep(_POLL)
    return True


@contextmanager
def _held(path: Path, holder: str) -> Iterator[None]:
    """Hold a lock; wait while another process, described by ``holder``, has it."""
    streams: list[IO[bytes]] = []

    def take() -> bool:
        stream = _lock(path, shared=False)
        streams.extend([] if stream is None else [stream])
        return stream is not None

    _wait(take, holder)
    with streams[0]:
        yield


def _is_held(path: Path) -> bool:
    """Return whether a process holds the lock."""
    # a shared lock: processes that ask at the same time do not take each other for holders
    stream = _lock(path, shared=True)
    if stream is not None:
        stream.close()
    return stream is None


def _is_free(path: Path) -> bool:
    """Return whether no process holds the lock."""
    return not _is_held(path)


def _lock(path: Path, *, shared: bool) -> IO[bytes] | None:
    """Lock a file and return it, open; None: another process holds it."""
    import fcntl  # POSIX only, like the machines of torchrun and SLURM

    stream = path.open("ab+")
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream
