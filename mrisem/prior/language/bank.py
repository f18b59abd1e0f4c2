"""Banks of response embeddings: what the model answers to auxiliary images, with noise on text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mrisem.errors import InputError
from mrisem.physics.masks import stable_seed
from mrisem.prior.cache import Bank, Unfinished
from mrisem.prior.contrastive import LANGUAGE_TEMPERATURES, info_nce
from mrisem.prior.language.model import ResponseEncoder
from mrisem.prior.language.precision import full_float32
from mrisem.prior.language.prompts import Prompt
from mrisem.prior.prior import AuxiliaryImages
from mrisem.progress import progress


@dataclass(frozen=True)
class Perturbation:
    """Gaussian noise on the embeddings of text (Eq. 10-11).

    Args:
        n: perturbed responses of each image (paper: 100).
        sigma: standard deviation (paper: 0.03; released scripts: 0.02).
        seed: seed of the noise, together with side and image.
        batch_size: perturbations in one pass of the language model; no matter for the result.
    """

    n: int = 100
    sigma: float = 0.03
    seed: int = 0
    batch_size: int = 10

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
class LanguageBank(Bank):
    """Responses to a prompt on images that show its first and its second answer.

    As the model gives them, float32, neither centred nor normalised: one bank serves the centred
    and the released loss, and both targets of the prompt.

    Args:
        positives: ``(image, perturbation, width)`` float32, images of the first answer.
        negatives: the same of the second answer; image i of both sides is the same slice.
    """

    FORMAT = "mrisem language bank 1"
    positives: Tensor
    negatives: Tensor

    def to(self, device: torch.device | str) -> LanguageBank:
        """Return the bank on ``device``."""
        sides = self.positives.to(device), self.negatives.to(device)
        return LanguageBank(*sides, description=self.description)

    def summary(self) -> list[str]:
        """See `Bank`."""
        n, perturbations, width = self.positives.shape
        sides = self.positives.mean(1), self.negatives.mean(1)  # one response for each image
        centred, released = (ranking_shares(*sides, center) for center in (True, False))
        return [
            f"  prompt      {self.description['prompt']['question']}",
            f"  responses   ({n} + {len(self.negatives)}) images x {perturbations} perturbations, "
            f"width {width}",
            "  separation  pairs ranked rightly (without centring): one left out "
            f"{100 * centred[0]:.1f} % ({100 * released[0]:.1f} %), "
            f"the pair left out {100 * centred[1]:.1f} % ({100 * released[1]:.1f} %)",
        ]

    def content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See `Bank`."""
        return {"positives": self.positives, "negatives": self.negatives}, {}

    @classmethod
    def of_content(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> LanguageBank:
        """See `Bank`."""
        return cls(**tensors, description=facts["description"])


def build_language_bank(
    encoder: ResponseEncoder,
    images: AuxiliaryImages,
    prompt: Prompt,
    perturbation: Perturbation,
    description: dict[str, Any],
    *,
    device: torch.device | str = "cpu",
    unfinished: Unfinished | None = None,
) -> LanguageBank:
    """Ask the prompt about every auxiliary image, ``perturbation.n`` times with noise.

    The vision tower sees each image once; only the language model runs n times. The bank is on the
    CPU, the model on ``device``.

    What ``unfinished`` keeps of an interrupted build is not asked again; the bank is the same, bit
    for bit.

    Raises:
        InputError: when there are no images, or a response is not finite.
    """
    if len(images) == 0:
        raise InputError("a bank needs at least one auxiliary slice, got none; see auxiliary.root")
    unfinished = unfinished or Unfinished()
    state = unfinished.read()
    sides = {name: [*state.get(name, ())] for name in ("positive", "negative")}
    done = len(sides["negative"])

    def so_far() -> dict[str, Tensor]:
        both = min(len(side) for side in sides.values())
        return {name: torch.stack(side[:both]) for name, side in sides.items() if both}

    title = f"bank, {prompt.name}"
    with unfinished.kept(so_far) as step, progress(title, len(images), "slices", done) as bar:
        for index, (full, aliased, _) in enumerate(images):
            if index < done:
                continue
            shown = prompt.sides(full, aliased)
            for (name, responses), image in zip(sides.items(), shown, strict=True):
                noise = perturbation.draw(encoder.n_text(prompt), encoder.width, name, index)
                responses.append(_responses(encoder, image.to(device), prompt, noise))
            step()
            bar.advance()
    stacked = (torch.stack(side) for side in sides.values())
    return LanguageBank(*stacked, description=description)


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
    responses = torch.cat(parts)
    if not bool(torch.isfinite(responses).all()):
        raise InputError(
            f"responses to the prompt '{prompt.name}' must be finite, got NaN or infinity; take "
            "encoder.dtype=float32"
        )
    return responses


def ranking_shares(positives: Tensor, negatives: Tensor, center: bool) -> tuple[float, float]:
    """Shares of (positive, negative) pairs whose positive has the smaller held-out loss.

    In float64, so that a flat loss is not decided by rounding. What is left out is missing in the
    bank's mean, too (`docs/method.md`: 9 % released, 100 % centred, one left out).

    Args:
        positives: ``(p, width)`` response embeddings, one an image; p > 1.
        negatives: ``(q, width)``; q > 1.
        center: subtract the bank's mean, as in `LanguagePrior`.

    Returns:
        two shares in [0, 1]. The first leaves out the response alone: a positive is held against
        one positive less than a negative is, which by itself shifts the loss by a factor of
        ``p / (p - 1)``, so that a flat loss falls *below* one half. The second leaves out both
        responses of the pair and has no such handicap.

    Raises:
        InputError: with fewer than two embeddings on a side.
    """
    if min(len(positives), len(negatives)) < 2:
        raise InputError(
            "ranking needs at least 2 embeddings on each side, got "
            f"{len(positives)} and {len(negatives)}"
        )
    p, n = positives.double(), negatives.double()
    wanted = torch.cat([_losses(p[i, None], _but(p, i), n, center) for i in range(len(p))])
    unwanted = torch.cat([_losses(n[j, None], p, _but(n, j), center) for j in range(len(n))])
    right = 0
    for i, j in product(range(len(p)), range(len(n))):
        pair = torch.stack([p[i], n[j]])
        first, second = _losses(pair, _but(p, i), _but(n, j), center)
        right += int(first < second)
    alone = float((wanted[:, None] < unwanted).double().mean())
    return alone, right / (len(p) * len(n))


def _losses(responses: Tensor, positives: Tensor, negatives: Tensor, center: bool) -> Tensor:
    mean = torch.cat([positives, negatives]).mean(0) if center else torch.zeros_like(positives[0])
    with full_float32(responses.device.type):  # autocast would turn float64 products to bfloat16
        unit = normalize(responses - mean, dim=-1)
        sides = [unit @ normalize(side - mean, dim=-1).T for side in (positives, negatives)]
        return info_nce(sides[0], sides[1], LANGUAGE_TEMPERATURES)


def _but(side: Tensor, index: int) -> Tensor:
    return torch.cat([side[:index], side[index + 1 :]])
