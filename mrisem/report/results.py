"""Reconstructed volumes and their targets: read, checked, scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from mrisem.errors import InputError
from mrisem.metrics.lesions import score_lesions
from mrisem.metrics.volume import VolumeMetrics
from mrisem.physics.fourier import center_crop

Row = dict[str, Any]
_FACTS = ("slices", "acceleration", "data_consistency", "seconds")


@dataclass(frozen=True)
class Volume:
    """One reconstructed file.

    Args:
        path: of the file.
        images: ``(slice, y, x)`` float32 magnitudes.
        facts: per slice: ``slices`` (index in the input), ``acceleration`` and so on.
        acquisition: fastMRI's name of the sequence.
    """

    path: Path
    images: Tensor
    facts: dict[str, np.ndarray]
    acquisition: str

    @property
    def slices(self) -> np.ndarray:
        """Index of each slice in the input."""
        return self.facts["slices"]


def score_file(
    file: Path, target_file: Path, metrics: VolumeMetrics, crop: str
) -> tuple[list[Row], list[Row], list[Row]]:
    """Score one reconstructed volume: rows of its slices, of the volume, of its lesions.

    Args:
        file: the reconstruction.
        target_file: the input file, with the target.
        metrics: what to score; it is reset.
        crop: full, or width: the central ``(x, x)``.
    """
    volume = read_reconstruction(file)
    target = read_target(target_file, volume.slices)
    peak = read_peak(target_file, crop)
    labels = read_lesions(target_file, volume.slices)
    images = volume.images
    if crop not in ("full", "width"):
        raise InputError(f"crop must be full or width, got {crop}")
    if images.shape == target.shape and crop == "width":
        size = _central(target.shape)
        images, target = center_crop(images, size), center_crop(target, size)
        labels = None if labels is None else center_crop(labels, size)
    metrics.reset()
    names = [file.name] * len(images)
    metrics.update(images, target, names, volume.slices.tolist(), {file.name: peak})
    result = metrics.compute()
    at = {int(number): index for index, number in enumerate(volume.slices)}
    lesions: list[Row] = []
    for row in result["slices"]:
        index = at[int(row["slice"] or 0)]
        row |= {k: float(v[index]) for k, v in volume.facts.items() if k != "slices"}
        row["acquisition"] = volume.acquisition
        if labels is not None:
            found = _lesion_rows(row, images[index], target[index], labels[index])
            row |= _lesion_means(found)
            lesions += found
    mean = float(np.mean(volume.facts["acceleration"]))
    known = {"acceleration": mean, "acquisition": volume.acquisition}
    return result["slices"], [row | known for row in result["volumes"]], lesions


def _lesion_rows(row: Row, image: Tensor, target: Tensor, labels: Tensor) -> list[Row]:
    known = {key: row[key] for key in ("file", "slice", "acceleration", "acquisition")}
    scores = score_lesions(image.numpy(), target.numpy(), labels.numpy())
    return [known | asdict(score) for score in scores]


def _lesion_means(rows: list[Row]) -> Row:
    """Return the slice's number of lesions and their mean scores; NaN without any."""
    means = {
        f"lesion_{name}": float(np.mean([row[name] for row in rows])) if rows else float("nan")
        for name in ("contrast", "error")
    }
    return {"lesions": len(rows), **means}


def read_reconstruction(file: Path) -> Volume:
    """Read a file that `mrisem reconstruct` wrote.

    Raises:
        InputError: it is damaged or no such file.
    """
    with open_file(file) as content:
        if "reconstruction" not in content or content["reconstruction"].ndim != 3:
            raise InputError(f"{file} must hold a dataset reconstruction (slice, y, x); remake it")
        images = torch.from_numpy(content["reconstruction"][()].astype(np.float32))
        facts = {"slices": np.arange(len(images))}
        for name in _FACTS:
            if name in content:
                facts[name] = np.asarray(content[name][()])
            facts.setdefault(name, np.full(len(images), np.nan))
            if facts[name].shape != (len(images),):
                raise InputError(
                    f"{file}: dataset {name} must have one value for each of the {len(images)} "
                    f"slices, got shape {facts[name].shape}; reconstruct the file again"
                )
        return Volume(file, images, facts, str(content.attrs.get("acquisition", "")))


def read_target(file: Path, slices: np.ndarray) -> Tensor:
    """Read the targets of some slices, ``(slice, y, x)`` float32.

    Raises:
        InputError: file, target or slices are missing.
    """
    if not file.is_file():
        raise InputError(
            f"each reconstruction needs a target file, got no {file}; "
            "give the data.root and data.split that were reconstructed"
        )
    with open_file(file) as content:
        if "reconstruction_rss" not in content:
            raise InputError(
                f"a target file must hold reconstruction_rss, got none in {file} (test files have "
                "none); evaluate files of a split that has targets"
            )
        target = content["reconstruction_rss"][()]
    if slices.size and slices.max() >= len(target):
        raise InputError(
            f"slices must lie in the target's 0..{len(target) - 1}, got {slices.max()} "
            f"for {file.name}; was it reconstructed from this file?"
        )
    return torch.from_numpy(target[slices].astype(np.float32))


def read_peak(file: Path, crop: str) -> float:
    """Return the maximum of a file's whole target, within the part that is scored."""
    with open_file(file) as content:
        target = torch.from_numpy(content["reconstruction_rss"][()])
    return float((center_crop(target, _central(target.shape)) if crop == "width" else target).max())


def _central(shape: Sequence[int]) -> tuple[int, int]:
    """Return the size of the central ``(x, x)`` of ``(..., y, x)``."""
    return min(shape[-1], shape[-2]), shape[-1]


def read_lesions(file: Path, slices: np.ndarray) -> Tensor | None:
    """Read which pixels of a target belong to which lesion.

    Returns:
        ``(slice, y, x)`` uint8, or None where the file does not say, as no scanner's file does.

    Raises:
        InputError: they are not the target's pixels.
    """
    with open_file(file) as content:
        if "lesions" not in content:
            return None
        labels, target = content["lesions"], content["reconstruction_rss"]
        if labels.shape != target.shape or labels.dtype != np.uint8:
            raise InputError(
                f"{file}: dataset lesions must be uint8 of the target's shape {target.shape}, got "
                f"{labels.dtype} {labels.shape}; simulate the file again"
            )
        return torch.from_numpy(labels[()][slices])


def open_file(file: Path) -> h5py.File:
    """Open an HDF5 file to read.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        return h5py.File(file)
    except OSError as error:
        raise InputError(f"{file} must be a whole HDF5 file ({error}); make it again") from error
