"""Prompts: a question with two opposing answers, and the images that show each answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mrisem.errors import InputError
from mrisem.physics.fourier import fft2c, ifft2c

BLUR = 2.0  # pixels, standard deviation: about the blur that `janus_mini` learnt to call blurred


def gaussian_blur(magnitude: Tensor, sigma: float = BLUR) -> Tensor:
    """Convolve with a Gaussian by its Fourier transform ``exp(-2 pi^2 sigma^2 f^2)``; cyclic edges.

    Args:
        magnitude: ``(..., y, x)`` real, not negative.
        sigma: standard deviation, pixels.

    >>> flat = torch.ones(8, 8)
    >>> torch.allclose(gaussian_blur(flat), flat, atol=1e-6)
    True
    """
    frequencies = [(torch.arange(n) - n // 2) / n for n in magnitude.shape[-2:]]
    y, x = (torch.exp(-2 * (math.pi * sigma * f) ** 2).to(magnitude.device) for f in frequencies)
    return ifft2c(fft2c(magnitude.to(torch.complex64)) * y[:, None] * x).real.clamp_min(0)


# Name -> function of an auxiliary pair (fully sampled, zero-filled) that gives the image to show.
# A new kind of image is one entry here.
IMAGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fully_sampled": lambda fully_sampled, zero_filled: fully_sampled,
    "zero_filled": lambda fully_sampled, zero_filled: zero_filled,
    "blurred": lambda fully_sampled, zero_filled: gaussian_blur(fully_sampled),
}


@dataclass(frozen=True)
class Prompt:
    """Question with two answers, the images that show each answer, and the wanted answer.

    Args:
        name: name of the pair of answers, such as ``high_low_quality``.
        question: question that the model is asked about the image.
        positive: answer word of the first side.
        negative: answer word of the second side.
        target: wanted side; exchanging it reverses the steering.
        positive_images: name in `IMAGES` of the images that show the first answer.
        negative_images: name in `IMAGES` of the images that show the second answer.

    Raises:
        InputError: when a name is not in `IMAGES`, or both answers are the same.
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
                raise InputError(
                    f"prompt.{side} must be one of {', '.join(IMAGES)}, got {name!r}; set one of "
                    "them"
                )
        if self.positive == self.negative:
            raise InputError(
                f"a prompt needs two different answers, got {self.positive!r} twice; change "
                "prompt.negative"
            )

    @property
    def wanted(self) -> str:
        """Answer word of the wanted side."""
        return self.positive if self.target == "positive" else self.negative

    def says_wanted(self, answer: str) -> bool:
        """Tell whether a decoded answer is the wanted word, ignoring case and punctuation.

        >>> Prompt("q", "?", "high-quality", "low-quality").says_wanted(" High-quality.")
        True
        """
        return answer.strip(" \n\t.,;:!?\"'").casefold() == self.wanted.casefold()

    def sides(self, full: Tensor, aliased: Tensor) -> tuple[Tensor, Tensor]:
        """Make the images that show ``positive`` and ``negative``, each ``(y, x)`` float32.

        Args:
            full: ``(y, x)`` float32, fully sampled magnitude.
            aliased: ``(y, x)`` float32, zero-filled magnitude of the same slice.
        """
        functions = IMAGES[self.positive_images], IMAGES[self.negative_images]
        return functions[0](full, aliased), functions[1](full, aliased)

    def facts(self) -> dict[str, Any]:
        """Return the facts on which a bank depends; the target only exchanges its sides."""
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
        raise InputError(
            f"prompt.wording must be 0 to {len(wordings) - 1}, got {wording}; set one of these"
        )
    question = wordings[wording]
    return Prompt(name, question, positive, negative, target, positive_images, negative_images)
