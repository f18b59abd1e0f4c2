"""Loads what the image-language route needs of a Janus checkpoint, and nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.prior.checkpoints import read_config, read_tensors, resolve_checkpoint, weight_files
from mrisem.prior.image.encoder import load_encoder
from mrisem.prior.language.conversation import Conversations
from mrisem.prior.language.model import ResponseEncoder
from mrisem.prior.language.precision import freeze_linears

_ANCHOR = "aligner.fc1.weight"  # names the whole's prefix among all weights
_HEAD = "lm_head.weight"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_language_model(
    path: str,
    dtype: torch.dtype | str = "float32",
    revision: str | None = None,
    pad_value: float | None = None,
    gradient_checkpointing: bool = False,
) -> ResponseEncoder:
    """Load vision tower, aligner and language model; neither output head nor image generator.

    Args:
        path: ``janus_mini``, a folder, or a hub name such as ``deepseek-community/Janus-Pro-1B``.
        dtype: in which the language model's matrices are kept, ``float32`` or ``bfloat16``; all
            else is kept, and everything computes, in float32.
        revision: commit, tag or branch of a hub name; a folder has none.
        pad_value: of the frame around small images (see `mrisem.prior.image.encoder.load_encoder`).
        gradient_checkpointing: less memory for more time.

    Returns:
        the frozen model, on the CPU.

    Raises:
        InputError: when checkpoint, tokenizer or dtype do not serve.
    """
    kept = _dtype(dtype)
    folder = resolve_checkpoint(path, revision)
    config = _read_janus_config(folder)
    tower = load_encoder(
        str(folder), [config.vision_config.num_hidden_layers], "float32", pad_value
    )
    conversations = Conversations(folder, config.image_token_id, tower.n_tokens, tower.image_size)
    whole = _load_parts(folder, config, kept)
    return ResponseEncoder(
        tower,
        whole.get_submodule("vision_model.post_layernorm"),
        whole.get_submodule("aligner"),
        whole.get_submodule("language_model"),
        conversations,
        partial(_read_head, folder),
        gradient_checkpointing,
    )


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise InputError(f"prior.dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}; set one")
    return _DTYPES[name]


def _read_janus_config(folder: Path) -> Any:
    model_type = read_config(folder).get("model_type")
    if model_type != "janus":
        raise InputError(
            f"the language route needs a checkpoint of model_type 'janus', got {model_type!r} in "
            f"{folder}; set encoder=janus_mini, janus_pro_1b or janus_pro_7b"
        )
    from transformers import JanusConfig

    return JanusConfig.from_pretrained(folder)


def _load_parts(folder: Path, config: Any, dtype: torch.dtype) -> nn.Module:
    """Return final norm, aligner and language model, named as in the checkpoint."""
    from transformers import AutoModel
    from transformers.models.janus.modeling_janus import JanusVisionAlignerMLP

    vision = config.vision_config
    with torch.device("meta"):  # no memory, no random numbers: the weights come from the file
        whole = nn.Module()
        whole.vision_model = nn.Module()
        whole.vision_model.post_layernorm = nn.LayerNorm(
            vision.hidden_size, eps=vision.layer_norm_eps
        )
        whole.aligner = JanusVisionAlignerMLP(vision)
        language = AutoModel.from_config(config.text_config)
        whole.language_model = language
    _fill(whole, folder, dtype)
    language.rotary_emb = type(language.rotary_emb)(language.config)  # computed, not stored
    freeze_linears(language)
    return whole


def _fill(whole: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """Put the stored weights in the place of the meta tensors."""
    files = weight_files(folder)
    prefix = _prefix(files, folder)
    shapes = {prefix + name: value.shape for name, value in whole.state_dict().items()}
    if missing := [name for name in shapes if name not in files]:
        raise InputError(
            f"checkpoint must hold aligner and language model, got no {missing[0]} "
            f"({len(missing)} missing) in {folder}; fetch it again"
        )
    weights: dict[str, Tensor] = {}
    for stored, value in read_tensors({name: files[name] for name in shapes}):
        if value.shape != shapes[stored]:
            raise InputError(
                f"weights must have the shapes that config.json asks for, {stored} "
                f"{tuple(shapes[stored])}, got {tuple(value.shape)} in {folder}; fetch it again"
            )
        own = stored.removeprefix(prefix)
        matrix = own.startswith("language_model.") and value.ndim > 1
        weights[own] = value.to(dtype if matrix else torch.float32)
    whole.load_state_dict(weights, assign=True)


def _prefix(files: dict[str, Path], folder: Path) -> str:
    found = [name for name in files if name == _ANCHOR or name.endswith(f".{_ANCHOR}")]
    if len(found) != 1:
        raise InputError(
            f"checkpoint must hold one aligner, got {len(found)} of the name {_ANCHOR} in "
            f"{folder}; fetch a whole Janus checkpoint, not its vision tower alone"
        )
    return found[0].removesuffix(_ANCHOR)


def _read_head(folder: Path) -> Tensor:
    """Read the output head, ``(vocabulary, width)``; a tied one is the token embedding."""
    files = weight_files(folder)
    tied = f"{_prefix(files, folder)}language_model.embed_tokens.weight"
    name = _HEAD if _HEAD in files else tied
    ((_, weight),) = read_tensors({name: files[name]})
    return weight
