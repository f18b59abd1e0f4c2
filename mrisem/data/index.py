"""Facts of data files that an earlier start has read, so that no start opens every file again."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import h5py
from filelock import FileLock

from mrisem.data.contents import dataset, open_scan
from mrisem.errors import InputError
from mrisem.files import remove_partial, write_text

# A file that changed this recently may change again under the same time stamp: it is not kept.
UNSETTLED = 2.0  # seconds: FAT's time stamps, the coarsest
# Modules whose code decides what the facts are.
_READERS = ("auxiliary", "contents", "geometry", "header", "volumes")
_READ = ("kspace", "reconstruction_rss", "reconstruction_esc", "ismrmrd_header", "mask")
Facts = dict[str, Any]  # JSON


class FileIndex:
    """Facts of data files by name of the file, in one JSON file for each data folder.

    They hold as long as the file has the same size, times of change and inode, and the code that
    reads it is the same. An index that is missing or damaged costs reading the files again. Whoever
    asks for facts does it ``with`` the index, which is then written where something was new.

    Args:
        folder: folder of the JSON files; None: nothing is kept.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._entries: dict[Path, dict[str, Facts]] = {}  # data folder -> file name -> facts
        self._new: set[Path] = set()  # data folders with facts that are not written yet

    def fact(self, path: Path, name: str, read: Callable[[h5py.File], Any]) -> Any:
        """Return what ``read`` makes of an open file, or made of it before.

        Args:
            path: the data file.
            name: name of the fact.
            read: returns what JSON can hold; its warnings are kept with it and said each time.

        Raises:
            InputError: when the file is bad, which is never kept.
        """
        if self.folder is None:
            with open_scan(path) as file:
                return read(file)
        identity = _identity(path)
        entries = self._load(path.parent)
        entry = entries.get(path.name, {})
        if identity is None or entry.get("identity") != identity:
            entry = {"identity": identity}
        if name not in entry:
            entry[name], alone = _read(path, read)
            settled = identity is not None and time.time() - identity[1] / 1e9 > UNSETTLED
            if alone and settled:
                entries[path.name] = entry
                self._new.add(path.parent)
        for text in entry[name]["warnings"]:
            warnings.warn(text, stacklevel=2)
        return entry[name]["value"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for folder in sorted(self._new):
            self._save(folder)
        self._new.clear()

    def _path(self, folder: Path) -> Path:
        name = hashlib.sha256(str(folder.absolute()).encode(errors="surrogateescape")).hexdigest()
        return Path(self.folder or "") / f"{name[:24]}.json"

    def _load(self, folder: Path) -> dict[str, Facts]:
        if folder not in self._entries:
            self._entries[folder] = _parse(self._path(folder))
        return self._entries[folder]

    def _save(self, folder: Path) -> None:
        """Write a data folder's facts, with those that another process has written meanwhile."""
        path = self._path(folder)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.parent / ".lock"):
                remove_partial(path.parent)
                entries = _merged(_parse(path), self._entries[folder])
                body = json.dumps({k: v for k, v in entries.items() if (folder / k).exists()})
                write_text(path, f"{_digest(body)}\n{body}\n")
        except OSError as error:
            warnings.warn(
                f"the index of {folder} cannot be kept, its files are opened again at each start "
                f"({error}); choose another paths.cache",
                stacklevel=3,
            )


def _merged(theirs: dict[str, Facts], ours: dict[str, Facts]) -> dict[str, Facts]:
    """Join facts of the same files; of a file that has changed ours are the newer ones."""
    return theirs | {
        name: (theirs.get(name, {}) if _same(theirs.get(name), entry) else {}) | entry
        for name, entry in ours.items()
    }


def _same(one: Facts | None, other: Facts) -> bool:
    return one is not None and one["identity"] == other["identity"]


def _identity(path: Path) -> list[int] | None:
    """Size, times of change in ns and inode of a file; None where there is none."""
    try:
        now = path.stat()
    except OSError:
        return None
    return [now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino]


def _read(path: Path, read: Callable[[h5py.File], Any]) -> tuple[Facts, bool]:
    """Return a fact with its warnings, and whether it depends on this file alone."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with open_scan(path) as file:
            value, alone = read(file), _alone(file)
    return {"value": value, "warnings": [str(warning.message) for warning in said]}, alone


def _alone(file: h5py.File) -> bool:
    """Whether no value lies in another file, whose changes this one would not show."""
    try:
        items = [dataset(file, name) for name in _READ]
    except InputError:
        return False
    return not any(item is not None and item.is_virtual for item in items)


def _parse(path: Path) -> dict[str, Facts]:
    """Read an index; empty where there is none, or it is damaged, or made by other code."""
    try:
        digest, _, body = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    body = body.removesuffix("\n")
    return dict(json.loads(body)) if digest == _digest(body) else {}


def _digest(body: str) -> str:
    """Hash of an index and of the code that reads data files."""
    digest = hashlib.sha256(body.encode())
    here = Path(__file__)
    for source in (here, *(here.with_name(f"{name}.py") for name in _READERS)):
        digest.update(source.read_bytes())
    return digest.hexdigest()
