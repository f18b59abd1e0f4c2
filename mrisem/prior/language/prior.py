"""Prior of the image-language route: a loss from a prompt, a model and a bank of responses."""

from __future__ import annotations

import logging
from functools import partial

import torch
from einops import reduce
from torch import Tensor
from torch.nn.functional import normalize

from mrisem.prior.contrastive import LANGUAGE_TEMPERATURES, info_nce
from mrisem.prior.jitter import Jitter
from mrisem.prior.language.bank import LanguageBank
from mrisem.prior.language.model import ResponseEncoder
from mrisem.prior.language.precision import IndependentValues
from mrisem.prior.language.prompts import Prompt
from mrisem.prior.prior import Prior

logger = logging.getLogger(__name__)


class LanguagePrior(Prior):
    """InfoNCE on the cosines between the response to an image and a bank of responses.

    By default the bank's mean is subtracted from every response before the cosine. All responses of
    one model point nearly the same way, so the released loss (``center=False``) is very flat
    (docs/method.md, Centring). Loss and gradient are computed in full float32. The class is not an
    nn.Module, so that checkpoints of a task contain neither model nor bank.

    Args:
        encoder: frozen model; gradients reach its images only.
        prompt: question, with the target that names the wanted side of the bank.
        bank: responses to the prompt about auxiliary images, on the encoder's device.
        temperatures: tau_pos of the wanted side, tau_neg of the unwanted side.
        center: subtract the bank's mean.
        jitter: shifts and noise over which responses are averaged; None: no jitter.
        answer_every: number of iterations between two decoded answers.
    """

    def __init__(
        self,
        encoder: ResponseEncoder,
        prompt: Prompt,
        bank: LanguageBank,
        temperatures: tuple[float, float] = LANGUAGE_TEMPERATURES,
        center: bool = True,
        jitter: Jitter | None = None,
        answer_every: int = 50,
    ) -> None:
        self.encoder, self.prompt, self.bank = encoder, prompt, bank
        self.temperatures, self.jitter, self.answer_every = temperatures, jitter, answer_every
        sides = bank.positives.flatten(0, 1), bank.negatives.flatten(0, 1)
        self.mean = torch.cat(sides).mean(0) if center else torch.zeros_like(sides[0][0])
        # unit length, so that products below are cosines
        entries = [normalize(side - self.mean, dim=-1) for side in sides]
        self.wanted, self.unwanted = entries if prompt.target == "positive" else entries[::-1]

    def losses(self, magnitude: Tensor, iteration: int = 0) -> dict[str, Tensor]:
        """See `Prior`; ``semantic`` and ``semantic_response`` are the same value.

        Only the loss is differentiable. ``positives_response`` and ``negatives_response`` are the
        mean similarities to the wanted and the unwanted responses.
        """
        # image by image: a batch of images through a language model would exceed the memory
        evaluate = partial(self._evaluate, iteration=iteration)
        loss, positives, negatives = IndependentValues.apply(magnitude, evaluate).unbind(1)
        return {
            "semantic": loss,
            "semantic_response": loss,
            "positives_response": positives.detach(),
            "negatives_response": negatives.detach(),
        }

    def diagnose(self, magnitude: Tensor, iteration: int | None) -> dict[str, Tensor]:
        """Decode the answer in words every ``answer_every`` iterations, and log it.

        Returns:
            ``says_wanted``, ``(batch,)``: 1 where the answer is the wanted word, else 0; in other
            iterations nothing.
        """
        if iteration is not None and iteration % self.answer_every:
            return {}
        answers = self.encoder.answer(magnitude, self.prompt)
        moment = "at the end" if iteration is None else f"iteration {iteration}"
        logger.info("%s the model answers %s", moment, answers)
        matches = [float(self.prompt.says_wanted(answer)) for answer in answers]
        return {"says_wanted": torch.tensor(matches, device=magnitude.device)}

    def signature(self, magnitude: Tensor) -> dict[str, Tensor]:
        """See `Prior`: (centred) responses of unit length, ``(batch, width)``."""
        with torch.no_grad():
            responses = self.encoder(magnitude, self.prompt)
            return {"response": normalize(responses - self.mean, dim=-1)}

    def bank_signature(self) -> dict[str, tuple[Tensor, Tensor]]:
        """See `Prior`: wanted and unwanted responses."""
        return {"response": (self.wanted, self.unwanted)}

    def _evaluate(self, images: Tensor, iteration: int) -> Tensor:
        """Compute ``(n, 3)``: loss, mean similarities to wanted and to unwanted responses."""
        copies = 1 if self.jitter is None else self.jitter.copies
        inputs = images if self.jitter is None else self.jitter(images, iteration)
        responses = self.encoder(inputs, self.prompt)
        # average over the copies of the jitter, then the cosine with each bank entry
        mean = reduce(responses, "(n copies) width -> n width", "mean", copies=copies)
        directions = normalize(mean - self.mean, dim=-1)
        positives, negatives = directions @ self.wanted.T, directions @ self.unwanted.T
        loss = info_nce(positives, negatives, self.temperatures)
        return torch.stack([loss, positives.mean(1), negatives.mean(1)], 1)
