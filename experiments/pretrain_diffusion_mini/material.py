"""Training images: what mrisem's readers find in the simulated folders, made worse, in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from mrisem.data.auxiliary import AuxiliarySettings, AuxiliarySlices
from mrisem.data.folders import find_volumes
from mrisem.prior.generative.text import WORDS
from mrisem.prior.language.prompts import gaussian_blur
from mrisem.progress import track

SPLITS = {"train": "train", "held_out": "val"}
QUALITIES = {"high-quality": 0.55, "aliased": 0.2, "blurred": 0.125, "noisy": 0.125}
FILLERS = ("mri", "of", "the")
FINDINGS = ("", "with lesion", "without lesion")
# Shares of the texts from which a part is left out, so that each also acts alone; and everything.
DROPPED, FINDING_DROPPED, ALL_DROPPED = 0.15, 0.5, 0.1


@dataclass(frozen=True)
class Slice:
    """A slice in two qualities and what is known of it.

    Args:
        good: ``(y, x)`` float16, maximum 1.
        aliased: the same slice zero-filled.
        contrast: words of its contrast.
        anatomy: word of its anatomy.
        finding: one of `FINDINGS`; empty: not known.
    """

    good: Tensor
    aliased: Tensor
    contrast: str
    anatomy: str
    finding: str


def load_material(folder: Path) -> dict[str, list[Slice]]:
    """Read ``simulated/*/{brain,knee}``, or the cache beside it: ``train`` and ``held_out``."""
    file = folder / "material.pt"
    if not file.is_file():
        roots = sorted(path.parent for path in folder.glob("simulated/*/*/multicoil_train"))
        if not roots:
            raise SystemExit(f"{folder}/simulated must hold scans, has none: see run.sh")
        read = {side: [vars(s) for root in roots for s in _read(root, side)] for side in SPLITS}
        partial = file.with_suffix(".part")
        torch.save(read, partial)
        partial.replace(file)
    stored = torch.load(file, weights_only=True)
    return {side: [Slice(**facts) for facts in stored[side]] for side in SPLITS}


def _read(root: Path, side: str) -> list[Slice]:
    volumes = find_volumes(root, SPLITS[side])[0]
    paths = {volume.file: volume.path for volume in volumes}
    slices = AuxiliarySlices(volumes, AuxiliarySettings())
    read = []
    for good, aliased, info in track(slices, f"{side} of {root.parent.name}", unit="slices"):
        contrast, anatomy = WORDS[info.acquisition]
        pair = [(image / image.max()).half() for image in (good, aliased)]
        finding = _finding(paths[info.file], info.slice)
        read.append(Slice(*pair, contrast, anatomy, finding))
    return read


def _finding(path: Path, index: int) -> str:
    """Say whether a simulated slice shows a lesion; nothing of a file without labels."""
    with h5py.File(path) as file:
        if "lesions" not in file:
            return FINDINGS[0]
        return FINDINGS[1] if file["lesions"][index].any() else FINDINGS[2]


def vocabulary() -> list[str]:
    """Return every word of every text, in lower case."""
    phrases = [*QUALITIES, *FILLERS, *FINDINGS, *(word for pair in WORDS.values() for word in pair)]
    return sorted({word for phrase in phrases for word in phrase.lower().split()})


def write(parts: dict[str, str]) -> str:
    """Write the text of an image: in the order of `DEFAULT_TEXT`, with the finding behind.

    >>> write({"quality": "high-quality", "contrast": "T2", "anatomy": "brain", "finding": ""})
    'high-quality T2 MRI of the brain'
    """
    place = f"of the {parts['anatomy']}" if parts["anatomy"] else ""
    words = (parts["quality"], parts["contrast"], "MRI", place, parts["finding"])
    return " ".join(word for word in words if word)


def draw_text(part: Slice, quality: str, generator: torch.Generator) -> str:
    """Write a text with parts left out at random."""
    draws = torch.rand(5, generator=generator).tolist()
    if draws.pop() < ALL_DROPPED:
        return ""
    parts = {"quality": quality, "contrast": part.contrast, "anatomy": part.anatomy}
    kept = {k: v if d > DROPPED else "" for (k, v), d in zip(parts.items(), draws, strict=False)}
    return write(kept | {"finding": part.finding if draws[3] > FINDING_DROPPED else ""})


def draw_image(part: Slice, quality: str, generator: torch.Generator) -> Tensor:
    """Make the image of a quality: ``(y, x)`` float32 with maximum 1, at random mirrored."""
    severity, side = torch.rand(2, generator=generator).tolist()
    image = (part.aliased if quality == "aliased" else part.good).float()
    if quality == "blurred":
        image = gaussian_blur(image, 0.7 + 1.8 * severity)
    elif quality == "noisy":
        image = (image + (0.03 + 0.1 * severity) * _noise(image, generator)).abs()
    return (image / image.max()).flip(1) if side < 0.5 else image / image.max()


def _noise(image: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(image.shape, generator=generator)


def draw_batch(
    slices: list[Slice], settings: dict[str, Any], generator: torch.Generator
) -> tuple[Tensor, list[str]]:
    """Draw images ``(n, 1, y, x)`` in [-1, 1] and their texts.

    Args:
        slices: what is drawn from.
        settings: ``batch``, and ``side`` of the squares cut from the images; without: whole images,
            all of the first one's size.
        generator: source of randomness.
    """
    shares, images, texts = torch.tensor([*QUALITIES.values()]), [], []
    while len(images) < settings["batch"]:
        part = slices[int(torch.randint(len(slices), (), generator=generator))]
        quality = [*QUALITIES][int(torch.multinomial(shares, 1, generator=generator))]
        image = draw_image(part, quality, generator)
        if side := settings.get("side"):
            top, left = (
                int(torch.randint(n - side + 1, (), generator=generator)) for n in image.shape
            )
            image = image[top : top + side, left : left + side]
        if not images or image.shape == images[0].shape:
            images.append(image)
            texts.append(draw_text(part, quality, generator))
    return 2 * torch.stack(images)[:, None] - 1, texts
