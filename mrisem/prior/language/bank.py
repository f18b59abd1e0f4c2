"""Banks of response embeddings: what the model answers to auxiliary images, with noise on text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from mrisem.errors import InputError
from mrisem.physics.masks import stable_seed
from mrisem.prior.cache import (
    content_key,
    file_line,
    load_or_build,
    read_bank_file,
    title,
    write_bank_file,
)
from mrisem.prior.language.model import ResponseEncoder
from mrisem.prior.language.prompts import Prompt
from mrisem.prior.language.ranking import pair_ranking_share, ranking_share
from mrisem.prior.prior import AuxiliaryImages

FORMAT = "mrisem language bank 1"


@dataclass(frozen=True)
class Perturbation:
    """Gaussian noise on the embeddings of text (Eq. 10-11).

    Args:
        n: perturbed responses of each image (paper: 100).
        sigma: standard deviation (paper: 0.03; released scripts: 0.02).
        seed: of the noise, together with side and image.
        batch_size: perturbations in one pass of the language model; no matter for the result.

    Raises:
        InputError: when a number is out of range.
    """

    n: int = 100
    sigma: float = 0.03
    seed: int = 0
    batch_size: int = 10

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.n < 1 or self.batch_size < 1:
            raise InputError(
                "prior.n_perturbations and prior.batch_size must be at least 1, got "
                f"{self.n} and {self.batch_size}"
            )
        if self.sigma < 0:
            raise InputError(f"prior.sigma must not be negative, got {self.sigma}")

    def draw(self, n_text: int, width: int, side: str, image: int) -> Iterator[Tensor]:
        """Draw the noise of one image.

        Yields:
            ``(batch_size, n_text, width)`` float32 on the CPU, n in all.
        """
        generator = torch.Generator().manual_seed(stable_seed("response", side, image, self.seed))
        for start in range(0, self.n, self.batch_size):
            size = min(self.batch_size, self.n - start)
            draws = [torch.randn(n_text, width, generator=generator) for _ in range(size)]
            yield self.sigma * torch.stack(draws)


@dataclass(frozen=True)
class LanguageBank:
    """Responses to a prompt on images that show its first and its second answer.

    As the model gives them, float32, neither centred nor normalised: one bank serves the centred
    and the released loss, and both targets of the prompt.

    Args:
        positives: ``(image, perturbation, width)`` float32, images of the first answer.
        negatives: the same of the second answer; image i of both sides is the same slice.
        description: what the bank is made of.
    """

    positives: Tensor
    negatives: Tensor
    description: dict[str, Any]

    def to(self, device: torch.device | str) -> LanguageBank:
        """Return the bank on ``device``."""
        return replace(
            self, positives=self.positives.to(device), negatives=self.negatives.to(device)
        )

    def describe(self, acquisition: str, path: Path) -> str:
        """Describe the bank for people: its images, prompt, and how well the sides separate.

        Args:
            acquisition: name of the acquisition that it guides.
            path: the bank's file.
        """
        n, perturbations, width = self.positives.shape
        sides = self.positives.mean(1), self.negatives.mean(1)  # one response for each image
        alone = [100 * ranking_share(*sides, center) for center in (True, False)]
        pairs = [100 * pair_ranking_share(*sides, center) for center in (True, False)]
        return "\n".join(
            [
                title(acquisition, self.description["images"]),
                f"  prompt      {self.description['prompt']['question']}",
                f"  responses   ({n} + {len(self.negatives)}) images x {perturbations} "
                f"perturbations, width {width}",
                "  separation  pairs ranked rightly (without centring): one left out "
                f"{alone[0]:.1f} % ({alone[1]:.1f} %), "
                f"the pair left out {pairs[0]:.1f} % ({pairs[1]:.1f} %)",
                file_line(path),
            ]
        )

    def save(self, path: Path) -> None:
        """Write to a safetensors file, wholly or not at all."""
        sides = {"positives": self.positives, "negatives": self.negatives}
        tensors = {name: side.contiguous().cpu() for name, side in sides.items()}
        write_bank_file(path, tensors, FORMAT, {}, self.description)

    @classmethod
    def load(cls, path: Path) -> LanguageBank:
        """Read a saved bank.

        Raises:
            ValueError: when the file is damaged or not a language bank.
        """
        tensors, facts = read_bank_file(path, FORMAT)
        return cls(tensors["positives"], tensors["negatives"], facts["description"])


def build_language_bank(
    encoder: ResponseEncoder,
    images: AuxiliaryImages,
    prompt: Prompt,
    perturbation: Perturbation,
    description: dict[str, Any],
    *,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> LanguageBank:
    """Ask the prompt about every auxiliary image, ``perturbation.n`` times with noise.

    The vision tower sees each image once; only the language model runs n times.

    Args:
        encoder: frozen model on ``device``.
        images: auxiliary slices.
        prompt: the question, and which images show its answers.
        perturbation: the noise.
        description: what the bank is made of.
        device: where the model is.
        progress: show a progress bar.

    Returns:
        the bank, on the CPU.

    Raises:
        InputError: when there are no images.
    """
    if len(images) == 0:
        raise InputError("a bank needs at least one auxiliary slice, got none; see auxiliary.root")
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    pairs = tqdm(images, desc=f"bank, {prompt.name}", unit="slice", disable=not progress)
    for index, (full, aliased, _) in enumerate(pairs):
        for name, store, image in zip(
            ("positive", "negative"), sides, prompt.sides(full, aliased), strict=True
        ):
            noise = perturbation.draw(encoder.n_text(prompt), encoder.width, name, index)
            store.append(_responses(encoder, image.to(device), prompt, noise))
    return LanguageBank(torch.stack(sides[0]), torch.stack(sides[1]), description)


@torch.no_grad()
def _responses(
    encoder: ResponseEncoder, image: Tensor, prompt: Prompt, noise: Iterator[Tensor]
) -> Tensor:
    """Return the responses to one ``(y, x)`` image, ``(perturbation, width)`` on the CPU."""
    tokens = encoder.image_tokens(image[None])
    parts = [
        encoder.respond(tokens.expand(len(part), -1, -1), prompt, part.to(tokens.device)).cpu()
        for part in noise
    ]
    return torch.cat(parts)


def load_or_build_language_bank(
    encoder: ResponseEncoder,
    images: AuxiliaryImages,
    prompt: Prompt,
    perturbation: Perturbation,
    folder: Path,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> tuple[LanguageBank, Path]:
    """Return the bank of these images, from the cache if it is there and sound.

    The file's name is the hash of everything that the bank depends on: weights and preprocessing,
    the conversation's tokens, images, noise. The prompt's target is not among it.

    Returns:
        the bank, on the CPU, and its file.
    """
    noise = {k: v for k, v in asdict(perturbation).items() if k != "batch_size"}
    facts = {
        "encoder": encoder.fingerprint,
        "conversation": encoder.conversations(prompt.question)[0].tolist(),
        "prompt": prompt.facts(),
        "perturbation": noise,
        "fingerprint": images.fingerprint,
    }
    description = {**facts, "images": images.describe()}
    path = folder / f"{content_key(facts)}.safetensors"

    def build() -> LanguageBank:
        return build_language_bank(
            encoder, images, prompt, perturbation, description, device=device, progress=progress
        )

    return load_or_build(path, LanguageBank.load, build), path
