"""Answers of a Janus model to several questions about an image at once, differentiable."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import JanusConfig, JanusForConditionalGeneration

from mrisem.adaptation.questions import Sequences
from mrisem.prior.checkpoints import Normalisation, read_normalisation
from mrisem.prior.image.preparation import Preparation
from mrisem.prior.language.loading import GENERATOR
from mrisem.prior.weights import load_config, load_model


def encode(
    model: JanusForConditionalGeneration,
    magnitudes: Iterable[Tensor],
    normalisation: Normalisation = (0.5, 0.5),
    pad_value: float | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Embed images by the vision tower.

    Args:
        model: the whole.
        magnitudes: images ``(y, x)``, whose sizes may differ.
        normalisation: mean and std that map [0, 1] to the tower's input range.
        pad_value: value around small images (see `Preparation`).

    Returns:
        tokens after the tower's final norm, ``(n, token, feature)``, and the same shape of its
        embeddings and of each layer's output.
    """
    vision: Any = model.config.vision_config
    side = vision.image_size
    prepare = Preparation(side, 3, normalisation, pad_value)
    pixels = torch.cat([prepare(magnitude[None]) for magnitude in magnitudes])
    pixels = pixels.to(model.device, next(model.model.vision_model.parameters()).dtype)
    tower = model.model.vision_model(pixels, output_hidden_states=True)
    return tower.last_hidden_state, tower.hidden_states


def answer(
    model: JanusForConditionalGeneration,
    tokens: Tensor,
    ids: Tensor,
    positions: Tensor,
    turns: Tensor | None = None,
) -> Tensor:
    """Run aligner and language model on images and text together.

    Args:
        model: the whole.
        tokens: ``(n, token, feature)`` of the vision tower.
        ids: ``(n, length)``; padding on the right needs no mask, as attention is causal.
        positions: ``(n, k)`` whose next-token logits are wanted.
        turns: ``(n, length)``, where several questions share an image: 0 for what they share, k for
            the k-th question, which sees the shared part and itself; None: one question.

    Returns:
        ``(n, k, vocabulary)`` logits.
    """
    image = model.model.aligner(tokens)
    text = model.get_input_embeddings()(ids).to(image.dtype)
    placeholder = (ids == model.config.image_token_id)[..., None]
    mixed = text.masked_scatter(placeholder, image)
    apart = {} if turns is None else _apart(turns, mixed.dtype)
    hidden = model.model.language_model(inputs_embeds=mixed, use_cache=False, **apart)
    rows = torch.arange(len(ids))[:, None]
    return model.lm_head(hidden.last_hidden_state[rows, positions])


def _apart(turns: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Mask and positions with which each question is alone with the image."""
    same = turns[:, :, None] == turns[:, None, :]
    seen = (same | (turns == 0)[:, None, :]).tril()
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return {"attention_mask": mask[:, None], "position_ids": seen.sum(-1) - 1}


@dataclass(frozen=True)
class AskedImages:
    """Images ``(y, x)``, whose sizes may differ, with their questions and answers."""

    images: Sequence[Tensor]
    sequences: Sequences


@dataclass(frozen=True)
class Adaptable:
    """A Janus model that takes factors, and how it sees images.

    Args:
        model: vision tower, aligner, language model and output head.
        normalisation: mean and std that map [0, 1] to the tower's input range.
        pad_value: value around small images (see `Preparation`).
    """

    model: Any
    normalisation: Normalisation
    pad_value: float | None = None

    def logits(self, asked: AskedImages) -> Tensor:
        """Return ``(n, k, vocabulary)`` float32 at the positions of all answers."""
        tokens, _ = encode(self.model, asked.images, self.normalisation, self.pad_value)
        parts = asked.sequences.ids, asked.sequences.positions, asked.sequences.turns
        return answer(self.model, tokens, *(part.to(tokens.device) for part in parts)).float()


def load_adaptable(
    folder: Path, dtype: torch.dtype, pad_value: float | None = None, checkpointing: bool = False
) -> Adaptable:
    """Load a checkpoint of Janus, frozen, without its image generator.

    Args:
        folder: checkpoint of model_type ``janus``.
        dtype: dtype of the frozen weights.
        pad_value: see `Adaptable`.
        checkpointing: recompute activations in the backward pass: less memory, more time.

    Raises:
        InputError: when the checkpoint cannot be used.
    """
    config = load_config(JanusConfig, folder)
    model = load_model(JanusForConditionalGeneration, folder, config, dtype, {})
    for name in GENERATOR:
        delattr(model.model, name)
    model.requires_grad_(False)
    if checkpointing:
        with warnings.catch_warnings():  # the name that all of transformers 5 has
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable({"use_reentrant": False})
    return Adaptable(model, read_normalisation(folder), pad_value)
