"""Folders of scans: ``root/multicoil_<split>/*.h5`` or other formats, or ``singlecoil_<split>``."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mrisem.data.index import FileIndex
from mrisem.data.readers.conversion import Conversion
from mrisem.data.readers.registry import suffixes
from mrisem.data.volumes import UNNAMED, Center, VolumeInfo, inspect_volume
from mrisem.errors import InputError
from mrisem.types import FailedScan


def split_folder(root: Path, split: str) -> Path:
    """Return the folder of a split: ``singlecoil_<split>`` if only that exists, else ``multicoil``.

    The folder need not exist.
    """
    multicoil, singlecoil = (root / f"{coils}_{split}" for coils in ("multicoil", "singlecoil"))
    return singlecoil if singlecoil.is_dir() and not multicoil.is_dir() else multicoil


def find_volumes(
    root: Path,
    split: str,
    on_error: str = "raise",
    kspace_center: Center = "middle",
    index: FileIndex | None = None,
    conversion: Conversion | None = None,
) -> tuple[list[VolumeInfo], list[FailedScan]]:
    """Inspect every file of a split's folder, in the order of their names.

    Args:
        root: folder of the data set.
        split: name of the split (see `split_folder`).
        on_error: ``raise`` at the first bad file, or ``skip``.
        kspace_center: position of the zero frequency in the files.
        index: facts of files that need not be opened again; None: every file is opened.
        conversion: conversion of other formats; None: files must have fastMRI's layout.

    Returns:
        the volumes, and the bad files (only with ``on_error="skip"``).

    Raises:
        InputError: when the folder is missing or empty, or a file is bad.
    """
    paths = _paths(root, split)
    volumes: list[VolumeInfo] = []
    failed: list[FailedScan] = []
    names: dict[str, str] = {}  # stem -> name of the first file with it
    with index or FileIndex() as facts:
        for path in paths:
            try:
                # the output of a scan has its stem, so a second such file would overwrite it
                if (other := names.setdefault(path.stem, path.name)) != path.name:
                    raise InputError(
                        f"files of a folder must differ in more than their ending, got {other} and "
                        f"{path.name} in {path.parent}; rename or remove one"
                    )
                stored = path if conversion is None else conversion.stored(path, facts)
                volumes.append(inspect_volume(path, kspace_center, facts, stored))
            except InputError as error:
                if on_error == "raise":
                    raise
                failed.append(FailedScan(path.name, str(error)))
    warn_without_subject([volume.file for volume in volumes if not volume.has_patient_id])
    return volumes, failed


def _paths(root: Path, split: str) -> list[Path]:
    """Return the data files of a split; raise InputError if folder or files are missing."""
    if not root.is_dir():
        raise InputError(
            "data.root (or auxiliary.root) must be a folder that holds multicoil_train, "
            f"multicoil_val and so on with fastMRI's .h5 files, got {root}, which does not exist; "
            "correct it (auxiliary.root may also be a folder of images)"
        )
    folder = split_folder(root, split)
    if not folder.is_dir():
        present = sorted(path.name for path in root.iterdir())[:8]
        raise InputError(
            f"a data set must hold a folder {folder.name}, got {present} in {root}; set data.root, "
            "auxiliary.root or data.split"
        )
    if not (paths := data_files(folder)):
        raise InputError(
            f"{folder} must hold scans that end in {', '.join(suffixes())}, got none; copy scans "
            "into it, or set data.root or data.split"
        )
    return paths


def warn_without_subject(files: Sequence[str]) -> None:
    """Give one warning of all files without ``patient_id``."""
    if files:
        warnings.warn(
            f"{len(files)} files have no patient_id, such as {files[0]}: each counts "
            "as a subject of its own; give the scans of one person the same patient_id",
            stacklevel=3,
        )


def data_files(folder: Path) -> list[Path]:
    """Return the data files of a folder, by name; empty if the folder is missing."""
    paths = folder.iterdir() if folder.is_dir() else ()
    endings = suffixes()
    # hidden files are unfinished copies and those of macOS (._name)
    return sorted(p for p in paths if p.suffix.lower() in endings and not p.name.startswith("."))


def select_acquisition(
    volumes: Iterable[VolumeInfo],
    acquisition: str | None,
    acquisitions: Collection[str],
    anatomy: str,
) -> list[VolumeInfo]:
    """Keep the volumes of one acquisition, or of all acquisitions of the anatomy.

    Files that name no acquisition count as the requested one.

    Args:
        volumes: volumes to select from.
        acquisition: requested acquisition; None: every one of the anatomy.
        acquisitions: acquisitions of the anatomy.
        anatomy: name of the anatomy, for messages.

    Raises:
        InputError: when the anatomy has no such acquisition, or no volume is left.
    """
    volumes = list(volumes)
    present = sorted({volume.acquisition for volume in volumes})
    if acquisition is not None and acquisition not in acquisitions:
        raise InputError(
            f"data.acquisition must be one of {list(acquisitions)} for the {anatomy}, got "
            f"{acquisition!r}; the files hold {present}, set one of them"
        )
    wanted = set(acquisitions) if acquisition is None else {acquisition}
    kept = [volume for volume in volumes if volume.acquisition in {*wanted, UNNAMED}]
    if not kept:
        raise InputError(
            f"{anatomy} scans must have an acquisition among {sorted(wanted)}, got {present} in "
            "the files; set data.acquisition, or data to the anatomy of the files"
        )
    if acquisition is None:
        return kept
    n_unnamed = sum(volume.acquisition == UNNAMED for volume in kept)
    if n_unnamed:
        warnings.warn(
            f"{n_unnamed} files name no acquisition and count as {acquisition}", stacklevel=2
        )
    return [replace(volume, acquisition=acquisition) for volume in kept]
