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
    """Folder of a split: ``multicoil_<split>`` if it is there, else ``singlecoil_<split>``.

    Where there is neither, the first is named.
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
        kspace_center: where the zero frequency lies in the files.
        index: files that it knows are not opened; None: every one is.
        conversion: reads other formats; None: files must have fastMRI's layout.

    Returns:
        Volumes, and with ``on_error="skip"`` the bad files; else the first of them raises.

    Raises:
        InputError: when the folder is missing or empty, or a file is bad.
    """
    if not root.is_dir():
        raise InputError(
            "data.root (or auxiliary.root) must be a folder that holds multicoil_train, "
            f"multicoil_val and so on with fastMRI's .h5 files, {root} does not exist; "
            "auxiliary.root may be a folder of images, too"
        )
    folder = split_folder(root, split)
    if not folder.is_dir():
        present = sorted(path.name for path in root.iterdir())[:8]
        raise InputError(
            f"a data set must hold a folder {folder.name}, {root} holds {present}; set data.root, "
            "auxiliary.root or data.split"
        )
    paths = data_files(folder)
    if not paths:
        raise InputError(
            f"{folder} must hold scans that end in {', '.join(suffixes())}, it holds none"
        )
    volumes: list[VolumeInfo] = []
    failed: list[FailedScan] = []
    stems: dict[str, str] = {}
    with index or FileIndex() as known:
        for path in paths:
            try:
                if (other := stems.setdefault(path.stem, path.name)) != path.name:
                    raise InputError(
                        f"files of a folder must differ in more than their ending, got {other} and "
                        f"{path.name} in {folder}; rename or remove one"
                    )
                stored = path if conversion is None else conversion.stored(path, known)
                volumes.append(inspect_volume(path, kspace_center, known, stored))
            except InputError as error:
                if on_error == "raise":
                    raise
                failed.append(FailedScan(path.name, str(error)))
    warn_without_subject([volume.file for volume in volumes if not volume.has_patient_id])
    return volumes, failed


def warn_without_subject(files: Sequence[str]) -> None:
    """Warn once of files without ``patient_id``."""
    if files:
        warnings.warn(
            f"{len(files)} files have no patient_id, such as {files[0]}: each counts "
            "as a subject of its own; give the scans of one person the same patient_id",
            stacklevel=3,
        )


def data_files(folder: Path) -> list[Path]:
    """Data files of a folder by name, without hidden and unfinished ones; none where it misses."""
    paths = folder.iterdir() if folder.is_dir() else ()
    endings = suffixes()
    return sorted(p for p in paths if p.suffix.lower() in endings and not p.name.startswith("."))


def select_acquisition(
    volumes: Iterable[VolumeInfo], acquisition: str | None, known: Collection[str], anatomy: str
) -> list[VolumeInfo]:
    """Keep the volumes of one acquisition, or of all that the anatomy has.

    Files that name no acquisition count as the one asked for; None asks for every one in ``known``.

    Raises:
        InputError: when the name is not among the anatomy's ``known`` ones, or nothing is left.
    """
    volumes = list(volumes)
    present = sorted({volume.acquisition for volume in volumes})
    if acquisition is not None and acquisition not in known:
        raise InputError(
            f"data.acquisition must be one of {list(known)} for the {anatomy}, got "
            f"{acquisition!r}; the files hold {present}"
        )
    wanted = set(known) if acquisition is None else {acquisition}
    kept = [volume for volume in volumes if volume.acquisition in {*wanted, UNNAMED}]
    if not kept:
        raise InputError(
            f"no {anatomy} scan with an acquisition among {sorted(wanted)}, the files hold "
            f"{present}; set data.acquisition or take that anatomy's data configuration"
        )
    if acquisition is None:
        return kept
    n_unnamed = sum(volume.acquisition == UNNAMED for volume in kept)
    if n_unnamed:
        warnings.warn(
            f"{n_unnamed} files name no acquisition and count as {acquisition}", stacklevel=2
        )
    return [replace(volume, acquisition=acquisition) for volume in kept]
