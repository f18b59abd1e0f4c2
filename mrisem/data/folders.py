"""Folders of fastMRI files: ``root/multicoil_<split>/*.h5``."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mrisem.data.volumes import UNNAMED, FailedScan, VolumeInfo, inspect_volume
from mrisem.errors import InputError

Found = tuple[list[VolumeInfo], list[FailedScan]]
_SUFFIXES = (".h5", ".hdf5")


@dataclass
class Folders:
    """Inspects each folder once.

    Args:
        on_error: ``raise`` at the first bad file, or ``skip`` it and list it.
    """

    on_error: str = "raise"
    _found: dict[tuple[Path, str, str], Found] = field(default_factory=dict, repr=False)

    def inspect(self, root: Path, split: str, on_error: str | None = None) -> Found:
        """Volumes of ``root/multicoil_<split>`` and the files that were skipped."""
        key = (root, split, on_error or self.on_error)
        if key not in self._found:
            self._found[key] = find_volumes(*key)
        return self._found[key]

    def subjects(self, root: Path, splits: Iterable[str]) -> set[str]:
        """Subjects of whole folders, of any acquisition.

        Folders that are missing or empty have none, nor has a file that cannot be read: its data
        cannot leak either.
        """
        subjects: set[str] = set()
        for split in splits:
            folder = root / f"multicoil_{split}"
            if folder.is_dir() and any(map(_is_data, folder.iterdir())):
                subjects |= {volume.subject for volume in self.inspect(root, split, "skip")[0]}
        return subjects


def find_volumes(root: Path | str, split: str, on_error: str = "raise") -> Found:
    """Inspect every file of ``root/multicoil_<split>``, in the order of their names.

    Args:
        root: the data set's folder.
        split: ``train``, ``val``, ``test`` or what else fastMRI names so.
        on_error: ``raise`` at the first bad file, or ``skip`` it and list it.

    Returns:
        Volumes, and the files that were skipped.

    Raises:
        InputError: when the folder is missing or empty, or a file is bad.
    """
    volumes: list[VolumeInfo] = []
    failed: list[FailedScan] = []
    for path in _files(Path(root), split):
        try:
            volumes.append(inspect_volume(path))
        except InputError as error:
            if on_error == "raise":
                raise
            failed.append(FailedScan(path.name, str(error)))
    return volumes, failed


def _files(root: Path, split: str) -> list[Path]:
    """Files of a split."""
    if not root.is_dir():
        raise InputError(
            "data.root (or auxiliary.root) must be a folder that holds multicoil_train, "
            f"multicoil_val and so on with fastMRI's .h5 files, {root} does not exist"
        )
    folder = root / f"multicoil_{split}"
    if not folder.is_dir():
        found = sorted(path.name for path in root.iterdir())[:8]
        raise InputError(
            f"a data set must hold a folder {folder.name}, {root} holds {found}; set data.root, "
            "auxiliary.root or data.split"
        )
    paths = sorted(path for path in folder.iterdir() if _is_data(path))
    if not paths:
        raise InputError(f"{folder} must hold fastMRI's .h5 files, it holds none")
    return paths


def select_acquisition(
    volumes: Iterable[VolumeInfo], acquisition: str | None, known: Collection[str], anatomy: str
) -> list[VolumeInfo]:
    """Keep the volumes of one acquisition, or of all that the anatomy has.

    Files that name no acquisition count as the one asked for.

    Args:
        volumes: candidates.
        acquisition: fastMRI's name; None: every one in ``known``.
        known: the anatomy's acquisitions.
        anatomy: for messages.

    Raises:
        InputError: when the name is unknown, or nothing is left.
    """
    volumes = list(volumes)
    found = sorted({volume.acquisition for volume in volumes})
    if acquisition is not None and acquisition not in known:
        raise InputError(
            f"data.acquisition must be one of {list(known)} for the {anatomy}, got "
            f"{acquisition!r}; the files hold {found}"
        )
    wanted = set(known) if acquisition is None else {acquisition}
    kept = [volume for volume in volumes if volume.acquisition in {*wanted, UNNAMED}]
    if not kept:
        raise InputError(
            f"no {anatomy} scan with an acquisition among {sorted(wanted)}, the files hold "
            f"{found}; set data.acquisition or take that anatomy's data configuration"
        )
    if acquisition is None:
        return kept
    n_unnamed = sum(volume.acquisition == UNNAMED for volume in kept)
    if n_unnamed:
        warnings.warn(
            f"{n_unnamed} files name no acquisition and count as {acquisition}", stacklevel=2
        )
    return [replace(volume, acquisition=acquisition) for volume in kept]


def _is_data(path: Path) -> bool:
    """Whether a name is that of a data file, not of a hidden or unfinished one."""
    return path.suffix in _SUFFIXES and not path.name.startswith(".")
