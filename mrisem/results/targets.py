"""Reading of the targets of an input file, with the lesions marked in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mrisem.data.arrays import target_name
from mrisem.data.volumes import patient_id
from mrisem.errors import InputError
from mrisem.results.hdf5 import numbers_of, open_hdf5

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Target:
    """Targets of one input file.

    Args:
        images: ``(slice, y, x)`` float32.
        lesions: ``(slice, y, x)`` uint8, number of a lesion, or 0; None: lesions are not marked.
        subject: attribute ``patient_id``; empty: there is none.
    """

    images: Tensor
    lesions: Tensor | None
    subject: str


def has_patient_id(file: Path) -> bool:
    """Return whether an input file, or the file of its targets, names its subject."""
    with open_hdf5(file, "copy it again") as content:
        return bool(patient_id(content))


def read_target(file: Path, slices: Sequence[int]) -> Target:
    """Read the targets of an input file.

    Args:
        file: the input file.
        slices: indices of slices that it must have.

    Raises:
        InputError: when file, targets or slices are missing, or lesions do not fit the targets.
    """
    import torch

    if not file.is_file():
        raise InputError(
            f"each reconstruction needs a target file, got no {file}; set data.root and data.split "
            "to the scans that were reconstructed"
        )
    with open_hdf5(file, "copy it again") as content:
        name = target_name(content)
        data = None if name is None else numbers_of(content, name, 3)
        if data is None:
            raise InputError(
                f"a target file must hold reconstruction_rss or reconstruction_esc, got none in "
                f"{file} (test files have none); evaluate files of a split that has targets"
            )
        images = data[()].astype(np.float32)
        lesions = numbers_of(content, "lesions", 3)
        labels = None if lesions is None else lesions[()]
        subject = patient_id(content)
    # a shorter file of the same name is another scan
    if max(slices, default=0) >= len(images):
        raise InputError(
            f"slices must lie in the target's 0..{len(images) - 1}, got {max(slices)} for "
            f"{file.name}; set data.root to the scans that were reconstructed"
        )
    if labels is not None and (labels.shape != images.shape or labels.dtype != np.uint8):
        raise InputError(
            f"{file}: dataset lesions must be uint8 of the target's shape {images.shape}, got "
            f"{labels.dtype} {labels.shape}; simulate the file again"
        )
    return Target(
        torch.from_numpy(images), None if labels is None else torch.from_numpy(labels), subject
    )
