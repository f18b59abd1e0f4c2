"""Files that appear whole or not at all, and one line of text for a file that is damaged."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mrisem.errors import InputError

_FULL = 2**16  # bytes: with fewer left, a failed write is put down to a full disk


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path to write to; the file takes its own name when it is complete and on the disk.

    A reader sees the former file or the new one, never a part. After an error, or when the process
    is killed, the former file stands. What a killed process leaves is hidden and ends in
    ``.partial`` (see `remove_partial`).

    Args:
        path: file to write; folders above it are made.

    Raises:
        OSError: of a full disk, whatever a library makes of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
        if os.name == "posix":  # a folder's own entry is on the disk after its own fsync only
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except Exception as error:
        if not isinstance(error, OSError) and shutil.disk_usage(path.parent).free < _FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with whole(path) as partial:
        partial.write_bytes(content)


def remove_partial(*folders: Path) -> None:
    """Remove what killed processes left of `whole` in folders; call it under their lock."""
    for folder in folders:
        for path in folder.glob(".*.partial"):
            path.unlink(missing_ok=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; wait, with a line that says so, while another process has it.

    The lock ends with the process that holds it, however it ends.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        sys.stderr.write(f"mrisem: waits for another process in {folder}\n")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def reading(path: Path, kind: str, fix: str) -> Iterator[None]:
    """Turn any error of a file's content into one line.

    Damaged bytes fail in every way that a parser knows, so that every exception is caught here.

    Args:
        path: file that is read.
        kind: what it must be, such as ``a whole HDF5 file``.
        fix: what to do about it.

    Raises:
        InputError: with path, reason and fix.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{path} must be {kind}, but cannot be read ({reason}); {fix}") from error
