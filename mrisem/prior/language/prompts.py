"""Prompts: a question with an opposing pair of answers, and which images show which answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mrisem.errors import InputError
from mrisem.physics.fourier import fft2c, ifft2c

BLUR = 2.0  # pixels: standard deviation; about where `janus_mini` learnt to say "blurred"


def gaussian_blur(magnitude: Tensor, sigma: float = BLUR) -> Tensor:
    """Convolve with a Gaussian (cyclic edges), by its transform ``exp(-2 pi^2 sigma^2 f^2)``.

    Args:
        magnitude: ``(..., y, x)`` real, not negative.
        sigma: standard deviation in pixels.

    >>> flat = torch.ones(8, 8)
    >>> torch.allclose(gaussian_blur(flat), flat, atol=1e-6)
    True
    """
    frequencies = [(torch.arange(n) - n // 2) / n for n in magnitude.shape[-2:]]
    y, x = (torch.exp(-2 * (math.pi * sigma * f) ** 2).to(magnitude.device) for f in frequencies)
    return ifft2c(fft2c(magnitude.to(torch.complex64)) * y[:, None] * x).real.clamp_min(0)


# name -> image of an auxiliary pair (fully sampled, zero-filled); a new one is one entry here
IMAGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fully_sampled": lambda full, aliased: full,
    "zero_filled": lambda full, aliased: aliased,
    "blurred": lambda full, aliased: gaussian_blur(full),
}


@dataclass(frozen=True)
class Prompt:
    """A question, its two answers, the images that show each, and the answer that is wanted.

    Args:
        name: name of the pair, such as ``high_low_quality``.
        question: what the model is asked about the image.
        positive: answer word of the first side.
        negative: answer word of the second side.
        target: which side is wanted; swapping it turns the steering round.
        positive_images: one of `IMAGES`: what shows the first side.
        negative_images: one of `IMAGES`: what shows the second side.

    Raises:
        InputError: when images are none of the choices, or both words are the same.
    """

    name: str
    question: str
    positive: str
    negative: str
    target: Literal["positive", "negative"] = "positive"
    positive_images: str = "fully_sampled"
    negative_images: str = "zero_filled"

    def __post_init__(self) -> None:
        """Check the choices."""
        for side in ("positive_images", "negative_images"):
            if (name := getattr(self, side)) not in IMAGES:
                raise InputError(f"prompt.{side} must be one of {', '.join(IMAGES)}, got {name!r}")
        if self.positive == self.negative:
            raise InputError(f"a prompt needs two different answers, got {self.positive!r} twice")

    @property
    def wanted(self) -> str:
        """The answer word that the image shall come to."""
        return self.positive if self.target == "positive" else self.negative

    def says_wanted(self, answer: str) -> bool:
        """Tell whether a decoded answer is the wanted word; case and punctuation do not count.

        >>> Prompt("q", "?", "high-quality", "low-quality").says_wanted(" High-quality.")
        True
        """
        return answer.strip(" \n\t.,;:!?\"'").casefold() == self.wanted.casefold()

    def sides(self, full: Tensor, aliased: Tensor) -> tuple[Tensor, Tensor]:
        """Make the images that show ``positive`` and ``negative``, each ``(y, x)`` float32.

        Args:
            full: ``(y, x)`` float32, fully sampled magnitude.
            aliased: ``(y, x)`` float32, the same slice zero-filled.
        """
        makers = IMAGES[self.positive_images], IMAGES[self.negative_images]
        return makers[0](full, aliased), makers[1](full, aliased)

    def facts(self) -> dict[str, Any]:
        """Return what a bank depends on: not the target, which only swaps the sides."""
        return {
            "question": self.question,
            "positive_images": self.positive_images,
            "negative_images": self.negative_images,
            "blur": BLUR,
        }


def make_prompt(
    name: str,
    wordings: Sequence[str],
    positive: str,
    negative: str,
    wording: int = 0,
    target: Literal["positive", "negative"] = "positive",
    positive_images: str = "fully_sampled",
    negative_images: str = "zero_filled",
) -> Prompt:
    """Make the `Prompt` that asks the question ``wordings[wording]``.

    Raises:
        InputError: when there is no such wording.
    """
    if not 0 <= wording < len(wordings):
        raise InputError(f"prompt.wording must be 0 to {len(wordings) - 1}, got {wording}")
    question = wordings[wording]
    return Prompt(name, question, positive, negative, target, positive_images, negative_images)
