"""Loading of the parts of a Janus checkpoint that the image-language route needs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.prior.adapters import PARTS, merge_adapter
from mrisem.prior.checkpoints import read_model_type, read_normalisation, resolve_checkpoint
from mrisem.prior.image.encoder import freeze_tower
from mrisem.prior.image.families import input_grid
from mrisem.prior.language.conversation import Conversations
from mrisem.prior.language.model import ResponseEncoder
from mrisem.prior.language.precision import freeze_linears
from mrisem.prior.weights import load_config, load_model, read_tensors, weight_files

_NAMES = {r"^model\.": ""}  # prefix of weights in a checkpoint with output head -> in the model
# Names of the output head: its own weight, or the token embedding with which it is tied.
_HEADS = (r"^lm_head\.weight$", r"language_model\.embed_tokens\.weight$")
# Parts of Janus that generate images.
GENERATOR = ("vqmodel", "generation_embeddings", "generation_aligner", "generation_head")


def load_language_model(
    path: str,
    dtype: Literal["float32", "bfloat16"] = "float32",
    revision: str | None = None,
    pad_value: float | None = None,
    gradient_checkpointing: bool = False,
    adapter: str | None = None,
) -> ResponseEncoder:
    """Load vision tower, aligner and language model, without output head and image generator.

    Args:
        path: ``janus_mini``, a folder, or a hub name such as ``deepseek-community/Janus-Pro-1B``.
        dtype: dtype in which the matrices of the language model are stored. All other weights are
            float32, and all computation is in float32.
        revision: commit, tag or branch of a hub name; None: its main branch.
        pad_value: value around small images (see `mrisem.prior.image.encoder.load_encoder`).
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        adapter: folder that `mrisem adapt` has written; None: the model as it is.

    Returns:
        frozen model on the CPU.

    Raises:
        InputError: when the checkpoint its tokenizer or the adapter cannot be used.
    """
    from transformers import JanusConfig

    folder = find_janus(path, revision)
    config = load_config(JanusConfig, folder)
    weight_files(folder)  # checked first: missing weights are the clearest error of a folder
    side, n_tokens = input_grid(config.vision_config)
    conversations = Conversations(folder, config.image_token_id, n_tokens, side)
    model = load_model(_without_generator(), folder, config, getattr(torch, dtype), _NAMES)
    if adapter is not None:
        merge_adapter(adapter, folder, {part: getattr(model, name) for part, name in PARTS.items()})
    tower, norm = model.vision_model, model.vision_model.post_layernorm
    tower.post_layernorm = nn.Identity()
    freeze_linears(model.language_model)
    last_layer = (config.vision_config.num_hidden_layers,)
    return ResponseEncoder(
        freeze_tower(tower, last_layer, read_normalisation(folder), pad_value),
        norm,
        model.aligner,
        model.language_model,
        conversations,
        partial(_read_head, folder),
        gradient_checkpointing,
    )


def find_janus(path: str, revision: str | None = None) -> Path:
    """Find the folder of a Janus checkpoint.

    Raises:
        InputError: when there is none, or it holds another kind of model.
    """
    folder = resolve_checkpoint(path, revision)
    if (model_type := read_model_type(folder)) != "janus":
        raise InputError(
            f"the language route needs a checkpoint of model_type 'janus', got {model_type!r} in "
            f"{folder}; set encoder=janus_mini, janus_pro_1b or janus_pro_7b"
        )
    return folder


def _without_generator() -> Any:
    """Make a class of Janus that allocates no memory for the image generator."""
    from transformers import JanusModel

    class JanusWithoutGenerator(JanusModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for name in GENERATOR:
                delattr(self, name)
            # Modules that stay in float32 when the rest is loaded in bfloat16: all but the
            # matrices of the language model. Its norms and biases are among them.
            self._keep_in_fp32_modules_strict = {"vision_model", "aligner", "norm", "bias"}

    return JanusWithoutGenerator


def _read_head(folder: Path) -> Tensor:
    """Read the output head, ``(vocabulary, width)``; a tied head is the token embedding."""
    files = weight_files(folder)
    heads = (read_tensors(file, pattern) for pattern in _HEADS for file in files)
    return next(weight for head in heads for weight in head.values())
