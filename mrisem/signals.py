"""Ends a run on a signal: after the present batch, or at once at the second signal."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

# what a terminal, a scheduler or SLURM's --signal sends
_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")


class Interrupted(BaseException):
    """A signal asked for the end.

    No `Exception`, so that no handler of errors takes it for one; no KeyboardInterrupt, which
    Lightning would turn into exit code 1.

    Args:
        signum: number of the signal.

    Attributes:
        kept: what a run keeps, for people; whoever knows it says it.
    """

    kept = "what is done is kept"

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 130 if signum == signal.SIGINT else 143


class _State:
    pid = -1  # of the process that listens: its children inherit the handler
    held = False  # whether a batch is under way
    waiting: int | None = None  # the signal that came meanwhile


def listen() -> None:
    """Turn signals into `Interrupted`; one that has a handler of somebody else keeps it."""
    if threading.current_thread() is not threading.main_thread():
        return
    _State.pid, _State.held, _State.waiting = os.getpid(), False, None
    for name in _SIGNALS:
        number = getattr(signal, name, None)  # Windows has two of them
        free = (signal.SIG_DFL, signal.default_int_handler, None)
        if number is not None and signal.getsignal(number) in free:
            signal.signal(number, _receive)


def hold() -> None:
    """Let a signal wait until `release`: a batch begins."""
    _State.held = True


def release() -> None:
    """Say that the batch is over and kept; raise `Interrupted` if a signal has waited for it."""
    _State.held = False
    if _State.waiting is not None:
        raise Interrupted(_State.waiting)


def leave(*_: object) -> None:
    """Leave signals to the process that has started this one, and ends it.

    A terminal or scheduler sends them to both. torch's handler would end a reader of data at once,
    and with it the batch that the other process still wants to keep.
    """
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, signal.SIG_IGN)


def _receive(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.pid:
        return  # a process that reads ahead: it ends with the one that started it
    if _State.held and _State.waiting is None:
        _State.waiting = signum
        name = signal.Signals(signum).name
        sys.stderr.write(f"mrisem: {name}: ends after this batch; once more: at once\n")
        return
    _State.held, _State.waiting = False, signum
    raise Interrupted(signum)
