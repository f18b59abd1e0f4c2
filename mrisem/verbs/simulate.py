"""`mrisem simulate`: simulated subjects in the fastMRI file format."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from omegaconf import DictConfig

from mrisem.data.contents import open_scan
from mrisem.data.writer import write_volume
from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop, ifft2c
from mrisem.physics.simulate import SNR, acquire, background_phase, coil_maps, noise_level

_ANATOMIES = ("brain", "knee")
_FIRST_VAL = 5000
_SHARES = (1.0, 0.95, 0.91)


@dataclass(frozen=True)
class Plan:
    """One file to be written.

    Args:
        path: the file.
        anatomy: brain or knee.
        acquisition: fastMRI's name of the sequence.
        seed: the subject's.
        patient_id: the subject's.
        lesions: whether some, none or all subjects of its split have lesions.
    """

    path: Path
    anatomy: str
    acquisition: str
    seed: int
    patient_id: str
    lesions: Any


def run(config: DictConfig) -> int:
    """Write ``output_dir/{anatomy}/multicoil_{train,val}/*.h5``.

    Raises:
        InputError: for an unknown anatomy or numbers that give no data.
    """
    from tqdm import tqdm

    _check(config)
    plans = list(_plans(config))
    todo = [plan for plan in plans if not (_exists(plan, config) and config.skip_existing)]
    _check_space(len(todo), config)
    subjects: dict[tuple[str, int], Any] = {}  # the present one
    for plan in tqdm(todo, desc="simulate", unit="file", disable=not todo):
        key = (plan.anatomy, plan.seed)
        if key not in subjects:
            subjects = {key: _anatomy(plan.anatomy).Subject(plan.seed, config.size, plan.lesions)}
        _write(plan, subjects[key], config)
    print(f"{len(todo)} files written, {len(plans) - len(todo)} kept in {config.output_dir}")
    return 0


def encoded_shape(size: int) -> tuple[int, int]:
    """Encoded matrix ``(y, x)`` for a target of ``size``: twice the readout, a wider phase encode.

    >>> encoded_shape(192), encoded_shape(96), encoded_shape(320)
    ((384, 208), (192, 112), (640, 352))
    """
    return 2 * size, size + 16 * max(1, size // 160)


def slice_positions(n_slices: int) -> list[float]:
    """Positions in [-1, 1], evenly around the centre.

    >>> slice_positions(3)
    [-0.5, 0.0, 0.5]
    """
    return [2 * (k + 1) / (n_slices + 1) - 1 for k in range(n_slices)]


def _check(config: DictConfig) -> None:
    if "all" in config.lesions.values() and "knee" in config.anatomies:
        raise InputError(
            "simulated knees have no lesions, got lesions of all subjects; set anatomies=[brain]"
        )


def _check_space(n_files: int, config: DictConfig) -> None:
    """Refuse to start what the disk cannot hold.

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
            "choose another output_dir or fewer n_train, n_val, n_slices"
        )


def _simulation(plan: Plan, config: DictConfig) -> str:
    """What decides a file's content beside its subject and contrast."""
    names = ("seed", "size", "n_slices", "n_coils", "snr_factor")
    facts = [f"{name}={config[name]}" for name in names]
    if plan.lesions != "some":  # left out: files are as those written before there was a choice
        facts.append(f"lesions={plan.lesions}")
    return " ".join(facts)


def _exists(plan: Plan, config: DictConfig) -> bool:
    """Whether the file is already there.

    Raises:
        InputError: when it is not one of ours, or is to be kept, but was made with other settings.
    """
    if not plan.path.exists():
        return False
    with open_scan(plan.path) as file:
        found = file.attrs.get("simulation")
    if found is None:
        raise InputError(f"{plan.path} was not simulated by mrisem and is left; move it away")
    wanted = _simulation(plan, config)
    if config.skip_existing and found != wanted:
        raise InputError(
            f"existing files must have been simulated with {wanted}, {plan.path} with "
            f"{found}; choose another output_dir or skip_existing=false"
        )
    return True


def _anatomy(name: str) -> ModuleType:
    return import_module(f"mrisem.anatomy.{name}")


def _plans(config: DictConfig) -> Iterator[Plan]:
    """All files, subject by subject; no number, so no subject, is ever used in both splits."""
    for anatomy in config.anatomies:
        acquisitions = _anatomy(anatomy).Subject.acquisitions
        val = range(_FIRST_VAL, _FIRST_VAL + config.n_val)
        for index in (*range(config.n_train), *val):
            split = "val" if index in val else "train"
            folder = Path(config.output_dir) / anatomy / f"multicoil_{split}"
            seed = (config.seed * 1_000_003 + index) * 2 + _ANATOMIES.index(anatomy)
            for acquisition in acquisitions:
                name = f"file_{anatomy}_{acquisition}_{index:04d}.h5"
                patient = f"simulated-{anatomy}-{config.seed}-{index:04d}"
                lesions = config.lesions[split]
                yield Plan(folder / name, anatomy, acquisition, seed, patient, lesions)


def _write(plan: Plan, subject: Any, config: DictConfig) -> None:
    """Simulate the acquisition of one file and write it."""
    size = config.size
    shape = encoded_shape(size)
    generator = torch.Generator().manual_seed(
        plan.seed * 16 + subject.acquisitions.index(plan.acquisition)
    )
    positions = slice_positions(config.n_slices)
    image = subject.images(plan.acquisition, positions, shape)
    fov = (shape[0] / size, shape[1] / size)
    maps = coil_maps(shape, config.n_coils, generator, field_of_view=fov)
    phase = background_phase(shape, generator)
    level = noise_level(image, SNR[plan.acquisition] * config.snr_factor)
    columns = _columns(shape[1], generator)
    kspace = acquire(image, maps, phase, level, columns, generator)
    target = torch.stack([ifft2c(one).abs().square().sum(0).sqrt() for one in kspace])
    target = center_crop(target, (size, size))
    write_volume(
        plan.path,
        kspace.numpy(),
        target.contiguous().numpy(),
        acquisition=plan.acquisition,
        patient_id=plan.patient_id,
        padding=columns,
        pixel_mm=subject.pixel,
        simulation=_simulation(plan, config),
        lesions=subject.lesion_labels(positions).numpy(),
    )


def _columns(width: int, generator: torch.Generator) -> tuple[int, int]:
    """Acquired phase-encode columns: some scans leave out the outermost."""
    share = _SHARES[int(torch.randint(len(_SHARES), (), generator=generator))]
    margin = round(width * (1 - share) / 2)
    return margin, width - margin
