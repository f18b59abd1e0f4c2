"""Simulation of scans, of subjects or from images: matrix, disk space, acquisition, writing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from mrisem.data.contents import open_scan
from mrisem.data.writer import write_volume
from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop, ifft2c
from mrisem.physics.simulate import SNR, acquire, background_phase, coil_maps, noise_level

_SHARES = (1.0, 0.95, 0.91)  # shares of the columns that a scan may acquire


@dataclass(frozen=True)
class ScanFile:
    """One file to be written.

    Args:
        path: path of the file.
        acquisition: fastMRI's name of the sequence.
        patient_id: name of the subject.
        simulation: text with all options that determine the content; it is written to the file.
    """

    path: Path
    acquisition: str
    patient_id: str
    simulation: str


@dataclass(frozen=True)
class Slices:
    """Images whose acquisition is simulated.

    Args:
        image: ``(slice, y, x)`` float32 magnitudes on the encoded field of view.
        pixel_mm: edge length of a pixel, mm.
        affine: ``(4, 4)`` float64 that maps (column, row, slice) of the target to mm (RAS+).
        lesions: ``(slice, Y, X)`` uint8, number of a lesion on the target's pixels, or 0; None:
            lesions are not marked.
    """

    image: Tensor
    pixel_mm: float
    affine: np.ndarray
    lesions: Tensor | None = None


def encoded_shape(size: int) -> tuple[int, int]:
    """Return the encoded matrix ``(y, x)`` of a square target: twice the readout, wider x.

    >>> encoded_shape(192), encoded_shape(96), encoded_shape(320)
    ((384, 208), (192, 112), (640, 352))
    """
    return 2 * size, size + 16 * max(1, size // 160)


def check_space(n_files: int, config: DictConfig, fewer: str) -> None:
    """Raise InputError if the disk cannot hold the files.

    Args:
        n_files: number of files.
        config: configuration of `mrisem simulate`.
        fewer: options that reduce number or size of the files, for the message.

    Raises:
        InputError: when the files would not fit.
    """
    folder = Path(config.output_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    y, x = encoded_shape(config.size)
    gigabytes = n_files * config.n_slices * config.n_coils * y * x * 8 / 1e9  # complex64
    free = shutil.disk_usage(folder).free / 1e9
    if gigabytes > free:
        raise InputError(
            f"{n_files} files need {gigabytes:.1f} GB of free disk, got {free:.1f} GB in {folder}; "
            f"choose another output_dir or fewer {fewer}"
        )


def is_simulated(file: ScanFile, skip_existing: bool) -> bool:
    """Return whether the file exists.

    Raises:
        InputError: when another program made it, or it is to be kept but has other settings.
    """
    if not file.path.exists():
        return False
    with open_scan(file.path) as content:
        simulation = content.attrs.get("simulation")
    if simulation is None:
        raise InputError(
            f"only simulated files are replaced, got {file.path}, which mrisem did not simulate; "
            "move it away"
        )
    if skip_existing and simulation != file.simulation:
        raise InputError(
            f"existing files must have been simulated with {file.simulation}, got {simulation} in "
            f"{file.path}; choose another output_dir or skip_existing=false"
        )
    return True


def write_scan(
    file: ScanFile, slices: Slices, config: DictConfig, generator: torch.Generator
) -> None:
    """Simulate the acquisition of one file and write it.

    Args:
        file: file to write.
        slices: images that are acquired.
        config: configuration of `mrisem simulate`.
        generator: random generator for coils, phase, columns and noise.
    """
    size, shape = config.size, encoded_shape(config.size)
    # coils lie around the target's field of view, not around the larger encoded one
    fov = (shape[0] / size, shape[1] / size)
    maps = coil_maps(shape, config.n_coils, generator, field_of_view=fov)
    phase = background_phase(shape, generator)
    level = noise_level(slices.image, SNR[file.acquisition] * config.snr_factor)
    columns = _columns(shape[1], generator)
    kspace = acquire(slices.image, maps, phase, level, columns, generator)
    # fastMRI's target: root-sum-of-squares of the noisy, fully sampled scan
    target = torch.stack([ifft2c(part).abs().square().sum(0).sqrt() for part in kspace])
    target = center_crop(target, (size, size))
    write_volume(
        file.path,
        kspace.numpy(),
        target.contiguous().numpy(),
        acquisition=file.acquisition,
        patient_id=file.patient_id,
        padding=columns,
        pixel_mm=slices.pixel_mm,
        simulation=file.simulation,
        lesions=None if slices.lesions is None else slices.lesions.numpy(),
        affine=slices.affine,
    )


def _columns(width: int, generator: torch.Generator) -> tuple[int, int]:
    """Draw the acquired phase-encode columns; some scans leave out the outermost."""
    share = _SHARES[int(torch.randint(len(_SHARES), (), generator=generator))]
    margin = round(width * (1 - share) / 2)
    return margin, width - margin


def facts_of(config: DictConfig, *names: str) -> str:
    """Return options as text, for the attribute ``simulation``."""
    values: list[Any] = [f"{name}={config[name]}" for name in names]
    return " ".join(values)
