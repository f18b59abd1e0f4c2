"""Reconstructed volumes and their targets: read, checked, scored."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mrisem.errors import InputError
from mrisem.metrics.lesions import score_lesions
from mrisem.metrics.volume import VolumeMetrics
from mrisem.physics.fourier import center_crop
from mrisem.report.runs import open_file

Row = dict[str, Any]
_FACTS = ("slices", "acceleration", "data_consistency", "seconds")


@dataclass(frozen=True)
class Volume:
    """One reconstructed file."""

    path: Path
    images: Tensor  # (slice, y, x) float32 magnitudes
    facts: dict[str, np.ndarray]  # per slice: `slices` (index in the input), `acceleration`, ...
    acquisition: str  # fastMRI's name of the sequence

    @property
    def slices(self) -> list[int]:
        """Index of each slice in the input."""
        numbers: list[int] = self.facts["slices"].tolist()
        return numbers


@dataclass(frozen=True)
class Target:
    """The targets of one input file."""

    images: Tensor  # (slice, y, x) float32
    lesions: Tensor | None  # (slice, y, x) uint8: a lesion's number, or 0; None: not marked


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
    whole = read_target(target_file, volume.slices)
    shown, truth, labels = volume.images, whole.images, whole.lesions
    if crop == "width" and shown.shape[1:] == truth.shape[1:]:  # else the metrics refuse it
        size = (min(truth.shape[-2:]), truth.shape[-1])
        shown, truth = center_crop(shown, size), center_crop(truth, size)
        labels = None if labels is None else center_crop(labels, size)
    target = truth[volume.slices]
    metrics.reset()
    names = [file.name] * len(shown)
    metrics.update(shown, target, names, volume.slices, {file.name: float(truth.max())})
    result = metrics.compute()
    lesions: list[Row] = []
    for row in result["slices"]:
        number = int(row["slice"] or 0)
        index = volume.slices.index(number)
        row |= {k: float(v[index]) for k, v in volume.facts.items() if k != "slices"}
        row["acquisition"] = volume.acquisition
        if labels is not None:
            pair = (shown[index].numpy(), target[index].numpy())
            scores = [asdict(score) for score in score_lesions(*pair, labels[number].numpy())]
            row["lesions"] = len(scores)
            for name in ("contrast", "error"):
                values = [score[name] for score in scores]
                row[f"lesion_{name}"] = float(np.mean(values)) if values else float("nan")
            facts = {key: row[key] for key in ("file", "slice", "acceleration", "acquisition")}
            lesions += [facts | score for score in scores]
    mean = float(np.mean(volume.facts["acceleration"]))
    whole_file = {"acceleration": mean, "acquisition": volume.acquisition}
    return result["slices"], [row | whole_file for row in result["volumes"]], lesions


def read_reconstruction(file: Path) -> Volume:
    """Read a file that `mrisem reconstruct` wrote; InputError when it is no such file."""
    with open_file(file) as content:
        if "reconstruction" not in content or content["reconstruction"].ndim != 3:
            raise InputError(f"{file} must hold a dataset reconstruction (slice, y, x); remake it")
        images = torch.from_numpy(content["reconstruction"][()].astype(np.float32))
        facts = {name: np.full(len(images), np.nan) for name in _FACTS}
        facts["slices"] = np.arange(len(images))
        for name in facts.keys() & content.keys():
            facts[name] = np.asarray(content[name][()])
            if facts[name].shape != (len(images),):
                raise InputError(
                    f"{file}: dataset {name} must have one value for each of the {len(images)} "
                    f"slices, got shape {facts[name].shape}; reconstruct the file again"
                )
        return Volume(file, images, facts, str(content.attrs.get("acquisition", "")))


def read_target(file: Path, slices: list[int]) -> Target:
    """Read the targets of an input file that must have these slices.

    Raises:
        InputError: file, targets or slices are missing, or lesions are not the target's pixels.
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
        images = content["reconstruction_rss"][()].astype(np.float32)
        labels = content["lesions"][()] if "lesions" in content else None
    if max(slices, default=0) >= len(images):
        raise InputError(
            f"slices must lie in the target's 0..{len(images) - 1}, got {max(slices)} "
            f"for {file.name}; was it reconstructed from this file?"
        )
    if labels is not None and (labels.shape != images.shape or labels.dtype != np.uint8):
        raise InputError(
            f"{file}: dataset lesions must be uint8 of the target's shape {images.shape}, got "
            f"{labels.dtype} {labels.shape}; simulate the file again"
        )
    return Target(torch.from_numpy(images), None if labels is None else torch.from_numpy(labels))
