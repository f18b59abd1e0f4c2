"""The image-language prior: a prompt, a model and a bank of its responses make a loss on images."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from einops import reduce
from torch import Tensor
from torch.nn.functional import normalize, softplus

from mrisem.errors import InputError
from mrisem.prior.jitter import Jitter
from mrisem.prior.language.precision import independent_values
from mrisem.prior.language.prompts import Prompt
from mrisem.prior.prior import Prior

if TYPE_CHECKING:
    from mrisem.prior.language.bank import LanguageBank  # which ranks by this module's loss

logger = logging.getLogger(__name__)

TEMPERATURES = (0.1, 0.7)  # tau_pos, tau_neg (Feng et al., arXiv:2511.19641)


class Responder(Protocol):
    """What a language prior needs of a model: `mrisem.prior.language.model.ResponseEncoder`."""

    def __call__(self, magnitude: Tensor, prompt: Prompt) -> Tensor:
        """``(n, y, x)`` magnitudes -> ``(n, width)`` response embeddings."""
        ...

    def answer(self, magnitude: Tensor, prompt: Prompt) -> list[str]:
        """``(n, y, x)`` magnitudes -> n decoded answers."""
        ...


def response_loss(
    positives: Tensor, negatives: Tensor, temperatures: tuple[float, float] = TEMPERATURES
) -> Tensor:
    """Multi-positive InfoNCE with a temperature for each side.

    ``-log( sum_pos exp(s / tau_pos) / (sum_pos exp(s / tau_pos) + sum_neg exp(s / tau_neg)) )``
    (Feng et al., arXiv:2511.19641).

    Args:
        positives: ``(batch, p)`` similarities s to the wanted responses.
        negatives: ``(batch, q)`` similarities to the unwanted ones.
        temperatures: tau_pos, tau_neg.

    Returns:
        ``(batch,)`` non-negative losses.

    >>> response_loss(torch.zeros(1, 1), torch.zeros(1, 3)).exp()
    tensor([4.])
    """
    wanted, unwanted = positives / temperatures[0], negatives / temperatures[1]
    # log(1 + exp(.)), not a difference of two logarithms: small losses keep their digits
    return softplus(unwanted.logsumexp(1) - wanted.logsumexp(1))


class LanguagePrior(Prior):
    """Cosine InfoNCE between the response to an image and a bank of responses.

    Centred (the default), the bank's mean is subtracted from every response before the cosine:
    all responses of one model point the same way, and the released loss (``center=False``) is flat
    (`docs/method.md`). Loss and gradient are computed in full float32, whatever surrounds them.

    Not an nn.Module on purpose: a task that holds it has neither model nor bank in its state_dict.

    Args:
        encoder: frozen; gradients pass to its images only.
        prompt: the question; its target says which side of the bank is wanted.
        bank: responses to the prompt on auxiliary images, on the encoder's device.
        temperature_positive: tau_pos, of the wanted side.
        temperature_negative: tau_neg, of the unwanted side.
        center: subtract the bank's mean.
        jitter: average responses over shifts and noise; None: the image as it is.
        answer_every: iterations between two decoded answers.

    Raises:
        InputError: when a number is out of range.
    """

    def __init__(
        self,
        encoder: Responder,
        prompt: Prompt,
        bank: LanguageBank,
        temperature_positive: float = TEMPERATURES[0],
        temperature_negative: float = TEMPERATURES[1],
        center: bool = True,
        jitter: Jitter | None = None,
        answer_every: int = 50,
    ) -> None:
        if min(temperature_positive, temperature_negative) <= 0:
            raise InputError(
                "prior.temperature_positive and prior.temperature_negative must be above 0, got "
                f"{temperature_positive} and {temperature_negative}"
            )
        self.encoder, self.prompt, self.bank = encoder, prompt, bank
        self.temperatures = temperature_positive, temperature_negative
        self.jitter = jitter
        self.answer_every = answer_every
        sides = bank.positives.flatten(0, 1), bank.negatives.flatten(0, 1)
        self.mean = torch.cat(sides).mean(0) if center else torch.zeros_like(sides[0][0])
        entries = [normalize(side - self.mean, dim=-1) for side in sides]
        self.wanted, self.unwanted = entries if prompt.target == "positive" else entries[::-1]

    def losses(self, magnitude: Tensor, iteration: int = 0) -> dict[str, Tensor]:
        """Return the loss and what else is worth a curve.

        Args:
            magnitude: ``(batch, y, x)`` floating point, of any positive scale.
            iteration: of the fit: which draw of the jitter.

        Returns:
            name -> ``(batch,)`` float32: ``semantic`` and ``semantic_response``, the same loss,
            which alone is differentiable; ``positives_response`` and ``negatives_response``, mean
            similarities to the wanted and the unwanted responses.
        """
        values = independent_values(partial(self._evaluate, iteration=iteration), magnitude)
        loss, positives, negatives = values.unbind(1)
        return {
            "semantic": loss,
            "semantic_response": loss,
            "positives_response": positives.detach(),
            "negatives_response": negatives.detach(),
        }

    def answer(self, magnitude: Tensor) -> list[str]:
        """Return the model's decoded answer to each of ``(batch, y, x)`` magnitudes."""
        return self.encoder.answer(magnitude, self.prompt)

    def diagnose(self, magnitude: Tensor, iteration: int | None) -> dict[str, Tensor]:
        """Ask for the answer in words, every ``answer_every`` iterations, and log it.

        Args:
            magnitude: ``(batch, y, x)``.
            iteration: of the fit; None: it has ended.

        Returns:
            ``says_wanted``, ``(batch,)``: 1 where the answer is the wanted word; else nothing.
        """
        if iteration is not None and iteration % self.answer_every:
            return {}
        answers = self.answer(magnitude)
        when = "at the end" if iteration is None else f"iteration {iteration}"
        logger.info("%s the model says %s", when, answers)
        said = [float(self.prompt.says_wanted(answer)) for answer in answers]
        return {"says_wanted": torch.tensor(said, device=magnitude.device)}

    def signature(self, magnitude: Tensor) -> dict[str, Tensor]:
        """Return what the loss compares, for pictures: unit responses, ``(batch, width)``."""
        with torch.no_grad():
            responses = self.encoder(magnitude, self.prompt)
            return {"response": normalize(responses - self.mean, dim=-1)}

    def bank_signature(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the same of the bank: wanted and unwanted responses, each ``(n, width)``."""
        return {"response": (self.wanted, self.unwanted)}

    def _evaluate(self, images: Tensor, iteration: int) -> Tensor:
        """``(n, y, x)`` -> ``(n, 3)``: loss, mean similarity to wanted and unwanted responses."""
        copies = 1 if self.jitter is None else self.jitter.copies
        varied = images if self.jitter is None else self.jitter(images, iteration)
        responses = self.encoder(varied, self.prompt)
        mean = reduce(responses, "(n copies) width -> n width", "mean", copies=copies)
        unit = normalize(mean - self.mean, dim=-1)
        positives, negatives = unit @ self.wanted.T, unit @ self.unwanted.T
        loss = response_loss(positives, negatives, self.temperatures)
        return torch.stack([loss, positives.mean(1), negatives.mean(1)], 1)
