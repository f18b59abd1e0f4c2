"""Processes that torchrun or srun has started find each other by locks in the run folder.

A lock ends with the process that holds it, however it ends, so that nothing is left of an earlier
start; no port is opened. The folder must lie on a file system that all machines share.
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

PATIENCE = 600.0  # seconds within which the processes of one start all come
_POLL = 0.1  # seconds
_END = "what is done is kept, the same command continues"


@contextmanager
def gathered(folder: Path, n: int) -> Iterator[None]:
    """Be the first of ``n`` processes: let the others begin, and wait until all have ended.

    Args:
        folder: the run folder, which is held and opened.
        n: number of processes.

    Raises:
        InputError: one of them did not come, or ended before its share was made.
    """
    place = _place(folder)
    shutil.rmtree(place / "ended", ignore_errors=True)
    others = range(1, n)
    for rank in others:
        if not _wait(partial(_is_held, place / str(rank)), f"process {rank} of {n}", PATIENCE):
            raise InputError(
                f"all {n} processes must come within {PATIENCE:.0f} s, {rank} did not; see what it "
                "said, then start them again"
            )
    with _held(place / "opened", "the others"):
        yield
        for rank in others:
            _wait(partial(_is_free, place / str(rank)), f"the share of process {rank}")
    if missing := [rank for rank in others if not (place / "ended" / str(rank)).exists()]:
        raise InputError(
            f"each of the {n} processes must end well, {missing[0]} did not (see what it said); "
            f"{_END}"
        )


@contextmanager
def following(folder: Path, rank: int) -> Iterator[None]:
    """Be another process than the first: begin when that one has opened the run folder.

    Raises:
        InputError: it has ended, or never came.
    """
    place = _place(folder)
    with _held(place / str(rank), f"an earlier process {rank}"):
        began = time.monotonic()

        def opened() -> bool:
            nonlocal began
            if _is_held(folder / ".lock"):  # by the first one, or another run that it waits for
                began = time.monotonic()
            return _is_held(place / "opened") or time.monotonic() - began > PATIENCE

        _wait(opened, "the first process")
        if not _is_held(place / "opened"):
            raise InputError(
                f"the first process must open {folder}, it has ended or never came; see what it "
                "said, then start them again"
            )
        yield
        (place / "ended").mkdir(exist_ok=True)
        (place / "ended" / str(rank)).touch()


def _place(folder: Path) -> Path:
    place = folder / ".processes"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _wait(reached: Callable[[], bool], what: str, seconds: float = float("inf")) -> bool:
    """Wait until something is reached and return whether it was; say so when it takes long."""
    began, said = time.monotonic(), False
    while not reached():
        waited = time.monotonic() - began
        if waited > seconds:
            return False
        if waited > 20 and not said:
            sys.stderr.write(f"mrisem: waits for {what}\n")
            said = True
        time.sleep(_POLL)
    return True


@contextmanager
def _held(path: Path, what: str) -> Iterator[None]:
    """Hold a lock; wait for it while another process has it."""
    streams: list[IO[bytes]] = []

    def take() -> bool:
        stream = _lock(path, shared=False)
        streams.extend([] if stream is None else [stream])
        return stream is not None

    _wait(take, what)
    with streams[0]:
        yield


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock; a shared one, so that those who ask are not seen."""
    stream = _lock(path, shared=True)
    if stream is not None:
        stream.close()
    return stream is None


def _is_free(path: Path) -> bool:
    return not _is_held(path)


def _lock(path: Path, *, shared: bool) -> IO[bytes] | None:
    import fcntl  # POSIX, as torchrun's and SLURM's machines are

    stream = path.open("ab+")
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        return None
    return stream
