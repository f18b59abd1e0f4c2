"""Index of facts about data files, so that a start need not open every file again."""

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

# A file that changed so recently may change again within the same time stamp: it is not indexed.
UNSETTLED = 2.0  # seconds, the resolution of FAT, which is the coarsest
# Modules whose code determines the facts: a change of it makes an index invalid.
_READERS = ("arrays", "auxiliary", "contents", "geometry", "header", "volumes")
_READ = ("kspace", "reconstruction_rss", "reconstruction_esc", "ismrmrd_header", "mask")
Facts = dict[str, Any]  # values that JSON can hold


class FileIndex:
    """Index of facts about data files: one JSON file for each data folder.

    Facts are valid as long as the file keeps its size, times of change and inode, and the code that
    reads it is the same. Without a valid index the files are read again. Use it as a context
    manager: new facts are written at its end.

    Args:
        folder: folder of the JSON files; None: no facts are kept.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._entries: dict[Path, dict[str, Facts]] = {}  # data folder -> file name -> facts
        self._new: set[Path] = set()  # data folders with facts that are not written yet

    def fact(self, path: Path, name: str, read: Callable[[h5py.File], Any]) -> Any:
        """Return a fact about a file, from the index or read from the file.

        Args:
            path: the data file.
            name: name of the fact.
            read: function of the open file that returns values that JSON can hold. Its warnings are
                indexed as well and given each time.

        Raises:
            InputError: when the file is bad; this is never indexed.
        """
        if self.folder is None:
            with open_scan(path) as file:
                return read(file)
        identity = _identity(path)
        entries = self._load(path.parent)
        entry = entries.get(path.name, {})
        if identity is None or entry.get("identity") != identity:
            entry = {"identity": identity}  # the file has changed: forget all its facts
        if name not in entry:
            entry[name], is_alone = _read(path, read)
            is_settled = identity is not None and time.time() - identity[1] / 1e9 > UNSETTLED
            if is_alone and is_settled:
                entries[path.name] = entry
                self._new.add(path.parent)
        for text in entry[name]["warnings"]:
            warnings.warn(text, stacklevel=2)
        return entry[name]["value"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # also after an error: the facts read so far are good
        for folder in sorted(self._new):
            self._save(folder)
        self._new.clear()

    def _path(self, folder: Path) -> Path:
        """Return the JSON file of a data folder; its name does not tell the folder's."""
        name = hashlib.sha256(str(folder.absolute()).encode(errors="surrogateescape")).hexdigest()
        return Path(self.folder or "") / f"{name[:24]}.json"

    def _load(self, folder: Path) -> dict[str, Facts]:
        """Return the entries of a data folder, which are read once."""
        if folder not in self._entries:
            self._entries[folder] = _parse(self._path(folder))
        return self._entries[folder]

    def _save(self, folder: Path) -> None:
        """Write the facts of a data folder, joined with those that another process has written."""
        path = self._path(folder)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.parent / ".lock"):
                remove_partial(path.parent)
                entries = _merged(_parse(path), self._entries[folder])
                # entries of files that were removed would stay forever
                body = json.dumps({k: v for k, v in entries.items() if (folder / k).exists()})
                write_text(path, f"{_digest(body)}\n{body}\n")
        except OSError as error:
            warnings.warn(
                f"the index of {folder} cannot be written ({error}): its files are opened again at "
                "each start; set another paths.cache",
                stacklevel=3,
            )


def _merged(stored: dict[str, Facts], new: dict[str, Facts]) -> dict[str, Facts]:
    """Join facts of files; for a file that has changed in between, only the new facts count."""
    return stored | {
        name: (stored.get(name, {}) if _is_same_file(stored.get(name), entry) else {}) | entry
        for name, entry in new.items()
    }


def _is_same_file(stored: Facts | None, new: Facts) -> bool:
    """Return whether two entries describe the same state of a file."""
    return stored is not None and stored["identity"] == new["identity"]


def _identity(path: Path) -> list[int] | None:
    """Return size, times of change in ns, and inode of a file; None: there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _read(path: Path, read: Callable[[h5py.File], Any]) -> tuple[Facts, bool]:
    """Return a fact with its warnings, and whether it depends on this file alone."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with open_scan(path) as file:
            value, is_alone = read(file), _is_alone(file)
    return {"value": value, "warnings": [str(warning.message) for warning in caught]}, is_alone


def _is_alone(file: h5py.File) -> bool:
    """Return whether all values lie in this file; changes of another would go unnoticed."""
    try:
        items = [dataset(file, name) for name in _READ]
    except InputError:
        return False
    return not any(item is not None and item.is_virtual for item in items)


def _parse(path: Path) -> dict[str, Facts]:
    """Read an index; empty: it is missing, damaged, or written by other code."""
    try:
        digest, _, body = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return {}
    body = body.removesuffix("\n")
    return dict(json.loads(body)) if digest == _digest(body) else {}


def _digest(body: str) -> str:
    """Return the hash of an index and of the code that reads data files."""
    digest = hashlib.sha256(body.encode())
    own_code = Path(__file__)
    for source in (own_code, *(own_code.with_name(f"{name}.py") for name in _READERS)):
        digest.update(source.read_bytes())
    return digest.hexdigest()
