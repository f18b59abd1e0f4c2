"""Loads what the image-language route needs of a Janus checkpoint, and nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.prior.checkpoints import read_model_type, read_normalisation, resolve_checkpoint
from mrisem.prior.image.encoder import freeze_tower
from mrisem.prior.image.families import input_grid
from mrisem.prior.language.conversation import Conversations
from mrisem.prior.language.model import ResponseEncoder
from mrisem.prior.language.precision import freeze_linears
from mrisem.prior.weights import load_config, load_model, read_tensors, weight_files

_NAMES = {r"^model\.": ""}  # of the weights in a checkpoint with output head
_HEADS = (r"^lm_head\.weight$", r"language_model\.embed_tokens\.weight$")  # its own, or a tied one
_GENERATOR = ("vqmodel", "generation_embeddings", "generation_aligner", "generation_head")


def load_language_model(
    path: str,
    dtype: Literal["float32", "bfloat16"] = "float32",
    revision: str | None = None,
    pad_value: float | None = None,
    gradient_checkpointing: bool = False,
) -> ResponseEncoder:
    """Load vision tower, aligner and language model; neither output head nor image generator.

    Args:
        path: ``janus_mini``, a folder, or a hub name such as ``deepseek-community/Janus-Pro-1B``.
        dtype: dtype in which the language model's matrices are kept; all else is kept, and
            everything computes, in float32.
        revision: commit, tag or branch of a hub name; a folder has none.
        pad_value: value around small images (see `mrisem.prior.image.encoder.load_encoder`).
        gradient_checkpointing: less memory for more time.

    Returns:
        the frozen model, on the CPU.

    Raises:
        InputError: when checkpoint or tokenizer do not serve.
    """
    from transformers import JanusConfig

    folder = resolve_checkpoint(path, revision)
    if (model_type := read_model_type(folder)) != "janus":
        raise InputError(
            f"the language route needs a checkpoint of model_type 'janus', got {model_type!r} in "
            f"{folder}; set encoder=janus_mini, janus_pro_1b or janus_pro_7b"
        )
    config = load_config(JanusConfig, folder)
    weight_files(folder)  # a folder without weights is refused as such, whatever else it lacks
    side, n_tokens = input_grid(config.vision_config)
    conversations = Conversations(folder, config.image_token_id, n_tokens, side)
    model = load_model(_without_generator(), folder, config, getattr(torch, dtype), _NAMES)
    tower, norm = model.vision_model, model.vision_model.post_layernorm
    tower.post_layernorm = nn.Identity()
    freeze_linears(model.language_model)
    last = (config.vision_config.num_hidden_layers,)
    return ResponseEncoder(
        freeze_tower(tower, last, read_normalisation(folder), pad_value),
        norm,
        model.aligner,
        model.language_model,
        conversations,
        partial(_read_head, folder),
        gradient_checkpointing,
    )


def _without_generator() -> Any:
    """Make the class of a Janus that takes no memory for its image generator."""
    from transformers import JanusModel

    class JanusWithoutGenerator(JanusModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for name in _GENERATOR:
                delattr(self, name)
            # What stays in float32 where the rest is loaded in bfloat16: all but the language
            # model's matrices, that is, also its norms and biases.
            self._keep_in_fp32_modules_strict = {"vision_model", "aligner", "norm", "bias"}

    return JanusWithoutGenerator


def _read_head(folder: Path) -> Tensor:
    """Read the output head, ``(vocabulary, width)``; a tied one is the token embedding."""
    files = weight_files(folder)
    heads = (read_tensors(file, pattern) for pattern in _HEADS for file in files)
    return next(weight for head in heads for weight in head.values())
