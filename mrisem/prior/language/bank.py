"""Banks of response embeddings: answers to auxiliary images, with noise on the text."""

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
    """Gaussian noise on text embeddings (Feng et al., arXiv:2511.19641, Eq. 10-11).

    Args:
        n: number of perturbed responses for each image (paper: 100).
        sigma: standard deviation of the noise (paper: 0.03; released scripts: 0.02).
        seed: seed of the noise, together with side and image.
        batch_size: number of perturbations in one pass of the language model; it does not change
            the result.
    """

    n: int = 100
    sigma: float = 0.03
    seed: int = 0
    batch_size: int = 10

    def draw(self, n_text: int, width: int, side: str, image: int) -> Iterator[Tensor]:
        """Draw the noise of one image.

        Args:
            n_text: number of tokens that are not the image's.
            width: width of a token embedding.
            side: name of the bank's side.
            image: index of the image.

        Yields:
            ``(batch_size, n_text, width)`` float32 on the CPU, n perturbations in all.
        """
        generator = torch.Generator().manual_seed(stable_seed("response", side, image, self.seed))
        for start in range(0, self.n, self.batch_size):
            size = min(self.batch_size, self.n - start)
            # one by one, so that the batch size does not change the noise
            draws = [torch.randn(n_text, width, generator=generator) for _ in range(size)]
            yield self.sigma * torch.stack(draws)


@dataclass(frozen=True)
class LanguageBank(Bank):
    """Responses to a prompt about images that show its first and its second answer.

    The responses are neither centred nor normalised, so one bank serves the centred and the
    released loss, and both targets of the prompt.

    Args:
        positives: ``(image, perturbation, width)`` float32, for images that show the first answer.
        negatives: ``(image, perturbation, width)`` float32, for images that show the second answer;
            image i of both sides is the same slice.
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
        sides = self.positives.mean(1), self.negatives.mean(1)  # mean response of each image
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
    """Ask the prompt's question about every auxiliary image, ``perturbation.n`` times with noise.

    The vision tower encodes each image once; only the language model runs n times.

    Args:
        encoder: frozen vision-language model on ``device``.
        images: positive and negative of each auxiliary slice, ``(Y, X)`` float32.
        prompt: question, and images that show its answers.
        perturbation: noise on the text embeddings.
        description: facts on the bank, for people.
        device: device of the model; the bank is on the CPU.
        unfinished: keeps the responses, from which an interrupted build continues; the bank is then
            the same, bit for bit. None: nothing is kept.

    Raises:
        InputError: when there are no images, or a response is not finite.
    """
    if len(images) == 0:
        raise InputError("a bank needs at least one auxiliary slice, got none; set auxiliary.root")
    unfinished = unfinished or Unfinished()
    state = unfinished.read()
    sides = {name: [*state.get(name, ())] for name in ("positive", "negative")}
    n_done = len(sides["negative"])

    def current_state() -> dict[str, Tensor]:
        # an interruption may come between the two sides of a slice: keep whole pairs
        n_pairs = min(len(side) for side in sides.values())
        return {name: torch.stack(side[:n_pairs]) for name, side in sides.items() if n_pairs}

    title = f"bank, {prompt.name}"
    with (
        unfinished.kept(current_state) as step,
        progress(title, len(images), "slices", n_done) as bar,
    ):
        for index, (fully_sampled, zero_filled, _) in enumerate(images):
            if index < n_done:
                continue
            pair = prompt.sides(fully_sampled, zero_filled)
            for (name, responses), image in zip(sides.items(), pair, strict=True):
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
    """Compute the responses to one image ``(y, x)``: ``(perturbation, width)`` on the CPU."""
    tokens = encoder.image_tokens(image[None])
    batches = [
        encoder.respond(tokens.expand(len(draws), -1, -1), prompt, draws.to(tokens.device)).cpu()
        for draws in noise
    ]
    responses = torch.cat(batches)
    if not bool(torch.isfinite(responses).all()):
        raise InputError(
            f"responses to the prompt '{prompt.name}' must be finite, got NaN or infinity; set "
            "encoder.dtype=float32"
        )
    return responses


def ranking_shares(positives: Tensor, negatives: Tensor, center: bool) -> tuple[float, float]:
    """Compute the shares of (positive, negative) pairs whose positive has the smaller loss.

    Responses are left out of the bank, and of its mean, when their loss is computed. In float64,
    since rounding would decide the order of losses that hardly differ.

    Args:
        positives: ``(p, width)`` response embeddings, one for each image; p > 1.
        negatives: ``(q, width)`` response embeddings, one for each image; q > 1.
        center: subtract the bank's mean, as in `LanguagePrior`.

    Returns:
        two shares in [0, 1]. The first leaves out the response itself. A positive is then compared
        with one positive less than a negative is. This changes the ratio of the sums by
        ``p / (p - 1)``, and a flat loss gets a share *below* one half. The second leaves out both
        responses of the pair, and is not biased in this way.

    Raises:
        InputError: with fewer than two embeddings on a side.
    """
    if min(len(positives), len(negatives)) < 2:
        raise InputError(
            "ranking needs at least 2 embeddings on each side, got "
            f"{len(positives)} and {len(negatives)}; take more auxiliary images"
        )
    p, n = positives.double(), negatives.double()
    loss_of_positives = torch.cat(
        [_losses(p[i, None], _leave_out(p, i), n, center) for i in range(len(p))]
    )
    loss_of_negatives = torch.cat(
        [_losses(n[j, None], p, _leave_out(n, j), center) for j in range(len(n))]
    )
    n_right = 0
    for i, j in product(range(len(p)), range(len(n))):
        pair = torch.stack([p[i], n[j]])
        first, second = _losses(pair, _leave_out(p, i), _leave_out(n, j), center)
        n_right += int(first < second)
    one_left_out = float((loss_of_positives[:, None] < loss_of_negatives).double().mean())
    return one_left_out, n_right / (len(p) * len(n))


def _losses(responses: Tensor, positives: Tensor, negatives: Tensor, center: bool) -> Tensor:
    """Compute the loss of each response ``(n, width)`` against a bank: ``(n,)``."""
    mean = torch.cat([positives, negatives]).mean(0) if center else torch.zeros_like(positives[0])
    with full_float32(responses.device.type):  # autocast would round products to bfloat16
        unit = normalize(responses - mean, dim=-1)
        sides = [unit @ normalize(side - mean, dim=-1).T for side in (positives, negatives)]
        return info_nce(sides[0], sides[1], LANGUAGE_TEMPERATURES)


def _leave_out(side: Tensor, index: int) -> Tensor:
    """Return the side of a bank without one entry."""
    return torch.cat([side[:index], side[index + 1 :]])
