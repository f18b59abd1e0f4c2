"""Builder of image-language priors: loads the model, finds or builds banks, makes the losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt

from mrisem.errors import InputError
from mrisem.prior.builder import BankPriorBuilder
from mrisem.prior.contrastive import LANGUAGE_TEMPERATURES
from mrisem.prior.jitter import Jitter
from mrisem.prior.language.bank import LanguageBank, Perturbation, build_language_bank
from mrisem.prior.language.loading import load_language_model
from mrisem.prior.language.model import ResponseEncoder
from mrisem.prior.language.prior import LanguagePrior
from mrisem.prior.language.prompts import Prompt
from mrisem.prior.prior import Contrast


class LanguagePriorBuilder(BankPriorBuilder):
    """Builder of a `LanguagePrior` for each acquisition.

    Args:
        path: Janus checkpoint: ``janus_mini``, a folder, or a hub name; None (an encoder without a
            language model) is refused.
        prompt: question, its two answers, and images that show them.
        folder: folder in which banks are cached.
        contrast: contrast of the auxiliary images (see `ImagePriorBuilder`).
        revision: commit, tag or branch of a hub name; None: its main branch.
        pad_value: value around small images (see `mrisem.prior.image.preparation`).
        temperature_positive: tau_pos of the wanted side, above 0.
        temperature_negative: tau_neg of the unwanted side, above 0.
        center: subtract the bank's mean from responses; false: the released loss.
        n_perturbations: number of perturbed responses for each auxiliary image (Eq. 10-11).
        sigma: standard deviation of the noise on text embeddings (Eq. 10-11).
        seed: seed of the noise.
        batch_size: number of perturbations in one pass of the language model; it does not change
            the result.
        dtype: dtype of the language model's stored weights, ``float32`` or ``bfloat16``.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        jitter: arguments of `Jitter`; None: no jitter.
        log_answer_every: number of iterations between two decoded answers.
        adapter: folder that `mrisem adapt` has written; None: the model as it is.

    Raises:
        InputError: when there is no checkpoint.
    """

    BANK = LanguageBank

    def __init__(
        self,
        path: str | None,
        prompt: Prompt,
        folder: str | Path,
        contrast: Contrast = "same",
        revision: str | None = None,
        pad_value: float | None = None,
        temperature_positive: Annotated[float, Gt(0)] = LANGUAGE_TEMPERATURES[0],
        temperature_negative: Annotated[float, Gt(0)] = LANGUAGE_TEMPERATURES[1],
        center: bool = True,
        n_perturbations: Annotated[int, Ge(1)] = 100,
        sigma: Annotated[float, Ge(0)] = 0.03,
        seed: int = 0,
        batch_size: Annotated[int, Ge(1)] = 10,
        dtype: Literal["float32", "bfloat16"] = "float32",
        gradient_checkpointing: bool = False,
        jitter: Mapping[str, Any] | None = None,
        log_answer_every: Annotated[int, Ge(1)] = 50,
        adapter: str | None = None,
    ) -> None:
        if path is None:
            raise InputError(
                "the image-language route needs a language model, got an encoder without one; set "
                "encoder=janus_mini, janus_pro_1b or janus_pro_7b"
            )
        self.prompt, self.folder, self.contrast = prompt, Path(folder), contrast
        self.make_encoder = partial(
            load_language_model, path, dtype, revision, pad_value, gradient_checkpointing, adapter
        )
        self.perturbation = Perturbation(n_perturbations, sigma, seed, batch_size)
        self.options: dict[str, Any] = {
            "temperatures": (temperature_positive, temperature_negative),
            "center": center,
            "jitter": None if jitter is None else Jitter(**jitter),
            "answer_every": log_answer_every,
        }

    def load_encoder(self, device: torch.device) -> ResponseEncoder:
        """See `BankPriorBuilder`."""
        return self.make_encoder().to(device)

    def recipe(
        self, encoder: ResponseEncoder, device: torch.device
    ) -> tuple[dict[str, Any], Callable[..., LanguageBank]]:
        """See `BankPriorBuilder`."""
        # The batch size does not change the bank, nor does the prompt's target, which only
        # exchanges the sides: neither is a fact.
        noise = asdict(self.perturbation)
        del noise["batch_size"]
        facts = {
            "encoder": encoder.fingerprint,
            "conversation": encoder.conversations(self.prompt.question)[0].tolist(),
            "prompt": self.prompt.facts(),
            "perturbation": noise,
        }
        build = partial(
            build_language_bank,
            encoder,
            prompt=self.prompt,
            perturbation=self.perturbation,
            device=device,
        )
        return facts, build

    def make_prior(self, encoder: ResponseEncoder, bank: LanguageBank) -> LanguagePrior:
        """See `BankPriorBuilder`."""
        return LanguagePrior(encoder, self.prompt, bank, **self.options)
