"""How much noise on the text makes the model's answer drift?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from mrisem.config.compose import compose
from mrisem.prior.language.bank import Perturbation
from mrisem.prior.language.loading import load_language_model
from mrisem.results.runs import find_runs
from mrisem.verbs.pieces import make_datamodule

SIGMAS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
COPIES = 20


@torch.no_grad()
def analyse(folder: Path) -> list[dict[str, Any]]:
    """Share of perturbed copies whose first answer token is not the unperturbed one.

    Of the auxiliary images of one guided run: for each sigma the share, and on how many images.
    """
    run = next(run for run in find_runs([folder / "runs"]) if run.has_prior)
    config = compose("reconstruct", [*run.record.overrides, "output_dir=unused"])
    encoder = load_language_model(config.encoder.path, revision=config.encoder.get("revision"))
    prompt = instantiate(config.prompt)
    data = make_datamodule(config, 1)
    data.setup("predict")
    slices = data.auxiliary_slices(data.reconstructed_acquisitions[0])
    images = [side for full, aliased, _ in slices for side in prompt.sides(full, aliased)]
    head = encoder.read_head().float()
    n_text, changed = encoder.n_text(prompt), dict.fromkeys(SIGMAS, 0)
    for index, image in enumerate(images):
        tokens = encoder.image_tokens(image[None])
        first = (encoder.respond(tokens, prompt) @ head.T).argmax(-1)
        for sigma in SIGMAS:
            draws = Perturbation(COPIES, sigma).draw(n_text, encoder.width, "drift", index)
            for noise in draws:
                copies = tokens.expand(len(noise), -1, -1)
                said = (encoder.respond(copies, prompt, noise) @ head.T).argmax(-1)
                changed[sigma] += int((said != first).sum())
    total = COPIES * len(images)
    return [
        {"sigma": sigma, "answers changed": count / total, "images": len(images), "copies": COPIES}
        for sigma, count in changed.items()
    ]


def outcome(own: list[dict[str, Any]]) -> str:
    """One line for the table of claims."""
    changed = ", ".join(f"{row['sigma']:g}: {100 * row['answers changed']:.0f} %" for row in own)
    return f"answers changed at sigma {changed} ({own[0]['images']} images)"
