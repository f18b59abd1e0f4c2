"""Clean simulated slices, made once and kept in a cache file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mrisem.anatomy import brain, knee

ANATOMIES = {"brain": brain.Subject, "knee": knee.Subject}
CONTRASTS = (*brain.Subject.acquisitions, *knee.Subject.acquisitions)
N_BRAIN = len(brain.Subject.acquisitions)  # the first contrasts are the brain's
# Seeds of subjects: far from those of `mrisem simulate`, so that no subject is on two sides.
FIRST_TRAIN, FIRST_HELD_OUT, PER_SIZE = 7_000_000, 8_000_000, 10_000
SEEN = 0.1  # difference that a lesion makes, of the image's maximum, above which it is there


@dataclass(frozen=True)
class Slices:
    """Clean slices of one matrix size.

    Args:
        image: ``(n, y, x)`` float16 with maximum 1.
        contrast: ``(n,)`` index into `CONTRASTS`.
        lesion: ``(n,)``: 1 with a lesion in the slice, 0 without, -1 unknown.
    """

    image: Tensor
    contrast: Tensor
    lesion: Tensor

    def choose(self, index: Tensor) -> Slices:
        """Slices ``index``, images as float32."""
        return Slices(self.image[index].float(), self.contrast[index], self.lesion[index])


Pool = list[Slices]  # one entry a matrix size


def load_pool(entries: dict[str, Any], seed: int, folder: Path) -> dict[str, Pool]:
    """Make the clean slices, or load them when the same ones were made before.

    Args:
        entries: the configuration's ``pool``.
        seed: shifts the subjects.
        folder: where the cache file lies.

    Returns:
        ``train`` and ``held_out``.
    """
    file = folder / f"pool-{_key(entries, seed)}.pt"
    if not file.is_file():
        stored = {
            "train": [asdict(s) for s in _make(entries, "", FIRST_TRAIN + seed)],
            "held_out": [asdict(s) for s in _make(entries, "_held_out", FIRST_HELD_OUT + seed)],
        }
        folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".part")
        torch.save(stored, partial)
        partial.replace(file)
    stored = torch.load(file, weights_only=True)
    return {side: [Slices(**slices) for slices in pool] for side, pool in stored.items()}


def _key(entries: dict[str, Any], seed: int) -> str:
    """Name the cache file by what it is made of, the anatomy's source included."""
    digest = hashlib.sha256(json.dumps([entries, seed], sort_keys=True).encode())
    for source in (*sorted(Path(brain.__file__).parent.glob("*.py")), Path(__file__)):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _make(entries: dict[str, Any], side: str, first_seed: int) -> Pool:
    pool = []
    for index, size in enumerate(entries["sizes"]):
        first = first_seed + index * PER_SIZE
        parts = [
            _slices(
                name, size, entries["n_slices"], range(first, first + entries[f"n_{name}{side}"])
            )
            for name in ANATOMIES
        ]
        columns = zip(*((p.image, p.contrast, p.lesion) for p in parts), strict=True)
        pool.append(Slices(*(torch.cat(column) for column in columns)))
    return pool


def _slices(name: str, size: int, n_slices: int, seeds: range) -> Slices:
    """Every contrast of random slices of the subjects."""
    images, contrasts, lesions = [], [], []
    for seed in tqdm(seeds, desc=f"{name} subjects, {size} pixels"):
        generator = torch.Generator().manual_seed(seed)
        positions = (1.6 * torch.rand(n_slices, generator=generator) - 0.8).tolist()
        subject, healthy = (ANATOMIES[name](seed, size) for _ in range(2))
        if name == "brain":
            healthy.lesions = []
        for acquisition in subject.acquisitions:
            image = subject.images(acquisition, positions)
            image = image / image.amax((-2, -1), keepdim=True)
            images.append(image.half())
            contrasts += [CONTRASTS.index(acquisition)] * n_slices
            if name != "brain":
                lesions += [-1] * n_slices  # simulated knees have none: nothing to tell apart
            elif not subject.lesions:
                lesions += [0] * n_slices
            else:
                other = healthy.images(acquisition, positions)
                other = other / other.amax((-2, -1), keepdim=True)
                lesions += ((image - other).abs().amax((-2, -1)) > SEEN).int().tolist()
    return Slices(torch.cat(images), torch.tensor(contrasts), torch.tensor(lesions))
