"""`mrisem export`: writes reconstructions of run folders in the formats of other programs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from mrisem.errors import InputError
from mrisem.progress import track

if TYPE_CHECKING:
    from mrisem.results.export.placed import PlacedImages

_SUFFIXES = {"nifti": ".nii.gz", "dicom": "", "ismrmrd": ".mrd"}  # ending of the file, or folder


def run(config: DictConfig) -> int:
    """Write ``export/`` beside each ``reconstructions/``; warn of unknown positions.

    Raises:
        InputError: when there is no run, or the size of its voxels is not known.
    """
    from mrisem.results.export.placed import place
    from mrisem.results.reading import read_volume
    from mrisem.results.runs import find_runs

    if OmegaConf.is_missing(config, "output_dir") or not config.output_dir:
        raise InputError("output_dir must name a run folder, got none; set output_dir")
    runs = find_runs([Path(config.output_dir).expanduser().resolve()])
    scans = [(run, file) for run in runs for file in run.files]
    write, unplaced, n_written = _writer(config.format), [], 0
    for run, file in track(scans, "export", unit="scans"):
        target = run.folder / "export" / f"{file.stem}{_SUFFIXES[config.format]}"
        if config.skip_existing and _is_newer(target, file):
            continue
        volume = read_volume(file)
        scan = place(volume, run.record, config.voxel_mm)
        write(scan, target, volume.subject, volume.file)
        n_written += 1
        unplaced += [] if scan.placed else [file.name]
    if unplaced:
        warnings.warn(
            f"position and orientation of {len(unplaced)} scans are not known, such as of "
            f"{unplaced[0]}: only the size of their voxels is right",
            stacklevel=2,
        )
    print(f"{n_written} scans written as {config.format}, {len(scans) - n_written} were there")
    for run in runs:
        print(run.folder / "export")
    return 0


def _is_newer(target: Path, file: Path) -> bool:
    """Return whether an export exists and is not older than the reconstruction."""
    return target.exists() and target.stat().st_mtime >= file.stat().st_mtime


def _writer(name: str) -> Callable[[PlacedImages, Path, str, str], None]:
    """Return the function that writes one scan: (scan, path, subject, input file) -> None."""
    from mrisem.results.export import dicom, ismrmrd, nifti

    if name == "dicom":
        # shared by all scans of the command: scans of one subject belong to one study
        identifiers = dicom.Identifiers()
        return lambda scan, path, subject, file: dicom.write(
            scan, path, identifiers.of(subject, file)
        )
    module = {"nifti": nifti, "ismrmrd": ismrmrd}[name]
    return lambda scan, path, *_: module.write(scan, path)
