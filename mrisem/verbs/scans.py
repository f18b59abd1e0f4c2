"""What simulated scans share, of subjects and of images: matrix, space on the disk, acquisition."""

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

_SHARES = (1.0, 0.95, 0.91)


@dataclass(frozen=True)
class ScanFile:
    """One file to be written.

    Args:
        path: the file.
        acquisition: fastMRI's name of the sequence.
        patient_id: the subject.
        simulation: what decides the content, kept in the file.
    """

    path: Path
    acquisition: str
    patient_id: str
    simulation: str


@dataclass(frozen=True)
class Slices:
    """What is acquired.

    Args:
        image: ``(slice, y, x)`` float32 magnitudes on the encoded field of view.
        pixel_mm: edge length of a pixel.
        affine: ``(4, 4)`` float64, maps (column, row, slice) of the target to mm (RAS+).
        lesions: ``(slice, Y, X)`` uint8 on the target's pixels; None: not marked.
    """

    image: Tensor
    pixel_mm: float
    affine: np.ndarray
    lesions: Tensor | None = None


def encoded_shape(size: int) -> tuple[int, int]:
    """Encoded matrix ``(y, x)`` for a target of ``size``: twice the readout, a wider phase encode.

    >>> encoded_shape(192), encoded_shape(96), encoded_shape(320)
    ((384, 208), (192, 112), (640, 352))
    """
    return 2 * size, size + 16 * max(1, size // 160)


def check_space(n_files: int, config: DictConfig, fewer: str) -> None:
    """Refuse to start what the disk cannot hold.

    Args:
        n_files: number of files.
        config: Configuration of `mrisem simulate`.
        fewer: options that would make the files fewer or smaller.

    Raises:
        InputError: when the files would not fit.
    """
    folder = Path(config.output_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    y, x = encoded_shape(config.size)
    gigabytes = n_files * config.n_slices * config.n_coils * y * x * 8 / 1e9
    free = shutil.disk_usage(folder).free / 1e9
    if gigabytes > free:
        raise InputError(
            f"{n_files} files need {gigabytes:.1f} GB, {folder} has {free:.1f} GB free; "
            f"choose another output_dir or fewer {fewer}"
        )


def is_there(file: ScanFile, skip_existing: bool) -> bool:
    """Whether the file is already there.

    Raises:
        InputError: when it is not one of ours, or is to be kept, but was made with other settings.
    """
    if not file.path.exists():
        return False
    with open_scan(file.path) as content:
        found = content.attrs.get("simulation")
    if found is None:
        raise InputError(f"{file.path} was not simulated by mrisem and is left; move it away")
    if skip_existing and found != file.simulation:
        raise InputError(
            f"existing files must have been simulated with {file.simulation}, {file.path} with "
            f"{found}; choose another output_dir or skip_existing=false"
        )
    return True


def write_scan(
    file: ScanFile, slices: Slices, config: DictConfig, generator: torch.Generator
) -> None:
    """Simulate the acquisition of one file and write it.

    Args:
        file: what is written.
        slices: what is acquired.
        config: Configuration of `mrisem simulate`.
        generator: source of coils, phase, columns left out, and noise.
    """
    size, shape = config.size, encoded_shape(config.size)
    fov = (shape[0] / size, shape[1] / size)
    maps = coil_maps(shape, config.n_coils, generator, field_of_view=fov)
    phase = background_phase(shape, generator)
    level = noise_level(slices.image, SNR[file.acquisition] * config.snr_factor)
    columns = _columns(shape[1], generator)
    kspace = acquire(slices.image, maps, phase, level, columns, generator)
    target = torch.stack([ifft2c(one).abs().square().sum(0).sqrt() for one in kspace])
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
    """Acquired phase-encode columns: some scans leave out the outermost."""
    share = _SHARES[int(torch.randint(len(_SHARES), (), generator=generator))]
    margin = round(width * (1 - share) / 2)
    return margin, width - margin


def facts_of(config: DictConfig, *names: str) -> str:
    """Options as text, for the attribute ``simulation``."""
    values: list[Any] = [f"{name}={config[name]}" for name in names]
    return " ".join(values)
