"""`mrisem simulate`: simulates scans of random subjects or from images, in fastMRI's format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from omegaconf import DictConfig

from mrisem.errors import InputError
from mrisem.progress import track
from mrisem.verbs.scans import (
    ScanFile,
    Slices,
    check_space,
    encoded_shape,
    facts_of,
    is_simulated,
    write_scan,
)

_ANATOMIES = ("brain", "knee")
_FIRST_VAL = 5000  # number of the first validation subject; training subjects count from 0


@dataclass(frozen=True)
class Plan:
    """One file to be written.

    Args:
        file: path, acquisition and subject.
        anatomy: name of the anatomy, ``brain`` or ``knee``.
        seed: seed of the subject.
        lesions: which subjects of its split have lesions: ``some``, ``none`` or ``all``.
    """

    file: ScanFile
    anatomy: str
    seed: int
    lesions: Any


def run(config: DictConfig) -> int:
    """Write ``output_dir/{anatomy}/multicoil_{train,val}/*.h5``.

    Raises:
        InputError: when options contradict each other, or the files do not fit on the disk.
    """
    if config.source is not None:
        from mrisem.verbs.image_scans import run as run_images

        return run_images(config)
    _check(config)
    plans = list(_plans(config))
    # the check comes first: it also refuses to replace files of other programs
    todo = [
        plan
        for plan in plans
        if not (is_simulated(plan.file, config.skip_existing) and config.skip_existing)
    ]
    check_space(len(todo), config, "n_train, n_val, n_slices")
    # files of a subject follow each other: only the present one is in memory
    subjects: dict[tuple[str, int], Any] = {}
    for plan in track(todo, "simulate", unit="files"):
        key = (plan.anatomy, plan.seed)
        if key not in subjects:
            subjects = {key: _anatomy(plan.anatomy).Subject(plan.seed, config.size, plan.lesions)}
        _write(plan, subjects[key], config)
    print(f"{len(todo)} files written, {len(plans) - len(todo)} kept in {config.output_dir}")
    return 0


def slice_positions(n_slices: int) -> list[float]:
    """Return positions in [-1, 1], evenly spaced around the centre.

    >>> slice_positions(3)
    [-0.5, 0.0, 0.5]
    """
    return [2 * (k + 1) / (n_slices + 1) - 1 for k in range(n_slices)]


def _check(config: DictConfig) -> None:
    """Raise InputError for lesions in knees, which are not simulated."""
    if "all" in config.lesions.values() and "knee" in config.anatomies:
        raise InputError(
            "simulated knees have no lesions, got lesions of all subjects; set anatomies=[brain]"
        )


def _simulation(lesions: Any, config: DictConfig) -> str:
    """Return the options that determine a file's content, beside its subject and contrast."""
    facts = facts_of(config, "seed", "size", "n_slices", "n_coils", "snr_factor")
    # the default is left out, so that files of earlier versions count as equal
    return facts if lesions == "some" else f"{facts} lesions={lesions}"


def _anatomy(name: str) -> ModuleType:
    """Import the module of an anatomy."""
    return import_module(f"mrisem.anatomy.{name}")


def _plans(config: DictConfig) -> Iterator[Plan]:
    """Yield all files, subject by subject."""
    for anatomy in config.anatomies:
        acquisitions = _anatomy(anatomy).Subject.acquisitions
        val = range(_FIRST_VAL, _FIRST_VAL + config.n_val)
        for index in (*range(config.n_train), *val):
            split = "val" if index in val else "train"
            folder = Path(config.output_dir) / anatomy / f"multicoil_{split}"
            # distinct for each seed, number and anatomy: no subject occurs in two splits
            seed = (config.seed * 1_000_003 + index) * 2 + _ANATOMIES.index(anatomy)
            lesions = config.lesions[split]
            for acquisition in acquisitions:
                path = folder / f"file_{anatomy}_{acquisition}_{index:04d}.h5"
                patient = f"simulated-{anatomy}-{config.seed}-{index:04d}"
                file = ScanFile(path, acquisition, patient, _simulation(lesions, config))
                yield Plan(file, anatomy, seed, lesions)


def _write(plan: Plan, subject: Any, config: DictConfig) -> None:
    """Simulate the acquisition of one file and write it."""
    acquisition = plan.file.acquisition
    generator = torch.Generator().manual_seed(
        plan.seed * 16 + subject.acquisitions.index(acquisition)
    )
    positions = slice_positions(config.n_slices)
    image = subject.images(acquisition, positions, encoded_shape(config.size))
    affine = subject.affine(positions).numpy()
    slices = Slices(image, subject.pixel, affine, subject.lesion_labels(positions))
    write_scan(plan.file, slices, config, generator)
