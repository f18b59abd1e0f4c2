"""Reconstructions by real methods beside their targets, as `run.sh` left them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import h5py
import torch
from torch import Tensor
from tqdm import tqdm

from mrisem.adaptation.degrade import blend
from mrisem.adaptation.pairs import KINDS, Pairs, compare, join
from mrisem.adaptation.pool import CONTRASTS

HELD_OUT = 4  # the subjects whose number is a multiple of it are not trained on


def load_material(folder: Path) -> dict[str, Pairs]:
    """Read all reconstructions below ``material/KIND``, with `KINDS` of `pairs`.

    Args:
        folder: Folder of the experiment, with ``simulated`` and ``noise_free``, too.

    Returns:
        ``train`` and ``held_out``; images, targets and noise-free targets with maximum 1.

    Raises:
        SystemExit: when there are none.
    """
    files = sorted((folder / "material").glob("*/**/reconstructions/*.h5"))
    if not files:
        raise SystemExit(f"{folder}/material must hold reconstructions, has none: see run.sh")
    found: dict[str, list[Pairs]] = {"train": [], "held_out": []}
    for file in tqdm(files, desc="reconstructions"):
        kind = file.relative_to(folder / "material").parts[0]
        side = "train" if int(file.stem.rsplit("_", 1)[1]) % HELD_OUT else "held_out"
        found[side].append(_read(file, folder, KINDS.index(kind)))
    return {side: join(parts) for side, parts in found.items()}


def draw_material(material: Pairs, severity: Tensor, generator: torch.Generator) -> Pairs:
    """Draw reconstructions, mirror and shift them, and blend them with their truth."""
    n = len(severity)
    chosen = torch.randint(len(material), (n,), generator=generator)
    image, truth, ideal, kind, contrast = (
        getattr(material, field.name)[chosen] for field in fields(Pairs)[:5]
    )
    three = torch.stack([image, truth, ideal], 1)
    mirrored = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    three = torch.where(mirrored, three.flip(-1), three)
    shifts = torch.randint(-8, 9, (n, 2), generator=generator).tolist()
    three = torch.stack([x.roll(tuple(s), (-2, -1)) for x, s in zip(three, shifts, strict=True)])
    worst, truth, ideal = three.unbind(1)
    return compare(blend(worst, truth, severity), truth, ideal, kind, contrast)


def _read(path: Path, folder: Path, kind: int) -> Pairs:
    with h5py.File(path) as file:
        image, slices = torch.from_numpy(file["reconstruction"][:]), file["slices"][:].tolist()

    def target(side: str) -> tuple[Tensor, int]:
        (source,) = (folder / side).glob(f"*/multicoil_val/{path.name}")
        with h5py.File(source) as file:
            images = torch.from_numpy(file["reconstruction_rss"][:])[slices]
            return images, CONTRASTS.index(file.attrs["acquisition"])

    (truth, contrast), (ideal, _) = target("simulated"), target("noise_free")
    three = (x.float() / x.amax((-2, -1), keepdim=True) for x in (image, truth, ideal))
    codes = (torch.full((len(image),), code) for code in (kind, contrast))
    return compare(*three, *codes)
