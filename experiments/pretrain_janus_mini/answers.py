"""What the shipped model answers about real scans: fully sampled, and zero-filled at R = 2 to 8.

python experiments/pretrain_janus_mini/answers.py DATA_ROOT... [--slices N]

Each root holds ``multicoil_val`` in the fastMRI format. All five wordings of both prompts.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from hydra.utils import instantiate

from mrisem.config.compose import compose
from mrisem.data.auxiliary import AuxiliarySettings, AuxiliarySlices
from mrisem.data.volumes import inspect_volume
from mrisem.prior.language.loading import load_language_model
from mrisem.prior.language.model import ResponseEncoder
from mrisem.prior.language.prompts import Prompt

WORDINGS, ACCELERATIONS = range(5), range(2, 9)
PROMPTS = ("high_low_quality", "blurred_aliasing")


def prompts(name: str) -> list[Prompt]:
    """All wordings of a prompt pair."""
    asked = ["prior=image_language", f"prompt={name}", "output_dir=x"]
    configs = [compose("reconstruct", [*asked, f"prompt.wording={w}"]) for w in WORDINGS]
    return [instantiate(config.prompt) for config in configs]


def images_of(file: Path, n_slices: int | None) -> dict[str, torch.Tensor]:
    """Return ``(slice, y, x)`` magnitudes of a file: in full, and zero-filled at each R."""
    volume, found = inspect_volume(file), {}
    for acceleration in ACCELERATIONS:
        settings = AuxiliarySettings(accelerations=[acceleration], max_slices=n_slices)
        pairs = [(full, aliased) for full, aliased, _ in AuxiliarySlices([volume], settings)]
        found["fully sampled"] = torch.stack([full for full, _ in pairs])
        found[f"R = {acceleration}"] = torch.stack([aliased for _, aliased in pairs])
    return found


def count(encoder: ResponseEncoder, images: torch.Tensor, asked: list[Prompt]) -> str:
    """Return how often, over images and wordings, each word of the pair is the answer."""
    said = [(prompt, answer) for prompt in asked for answer in encoder.answer(images, prompt)]
    counts = [
        sum(replace(prompt, target=target).says_wanted(answer) for prompt, answer in said)
        for target in ("positive", "negative")
    ]
    return f"{counts[0]} / {counts[1]} of {len(said)}"


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("roots", nargs="+", type=Path)
    parser.add_argument("--slices", type=int, help="central ones of each file; default: all")
    arguments = parser.parse_args()
    encoder = load_language_model("janus_mini")
    asked = {name: prompts(name) for name in PROMPTS}
    pairs = [f"{a[0].positive} / {a[0].negative}" for a in asked.values()]
    print(f"| file | image | {' | '.join(pairs)} |\n|---|---|---|---|")
    for file in sorted(f for root in arguments.roots for f in root.glob("multicoil_val/*.h5")):
        for name, images in images_of(file, arguments.slices).items():
            cells = [count(encoder, images, asked[prompt]) for prompt in PROMPTS]
            print(f"| {file.stem} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
