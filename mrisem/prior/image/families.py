"""Vision towers of transformers behind one form: pixels -> embeddings -> layers, and nothing else.

A family is one entry of `FAMILIES`: where it keeps its parts. Image size, patch grid, channels,
depth and prefix tokens are read from the checkpoint's own configuration. Of the weights only those
of the embeddings and of the layers up to the deepest level are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.prior.checkpoints import read_config, read_tensors, weight_files


@dataclass(frozen=True)
class Alias:
    """A weight that checkpoints store under another name than the module's own.

    Args:
        own: part of the module's name.
        stored: what stands there in the file.
        part: which of ``parts`` equal pieces of the stored tensor, cut along its first axis.
        parts: number of pieces; 1 takes the tensor whole.
    """

    own: str
    stored: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Family:
    """Where a family of vision towers keeps its parts.

    Args:
        module: module of transformers that defines the tower.
        tower: class of the tower.
        anchor: weight that names the tower's prefix among all weights of a checkpoint.
        embeddings: modules that turn pixels into the first layer's input, in their order.
        layers: the transformer layers.
        layer_arguments: what a layer takes beside the hidden state (an attention mask: none).
        aliases: other names in files.
    """

    module: str
    tower: str
    anchor: str = "embeddings.patch_embedding.weight"
    embeddings: tuple[str, ...] = ("embeddings",)
    layers: str = "encoder.layers"
    layer_arguments: tuple[None, ...] = (None,)
    aliases: tuple[Alias, ...] = ()


_JANUS = Family("janus.modeling_janus", "JanusVisionModel")
_SIGLIP = Family("siglip.modeling_siglip", "SiglipVisionModel")
_CLIP = Family("clip.modeling_clip", "CLIPVisionModel", embeddings=("embeddings", "pre_layrnorm"))


def _dinov2(module: str, tower: str) -> Family:
    aliases = (
        Alias("attention.q_proj.", "attention.attention.query."),
        Alias("attention.k_proj.", "attention.attention.key."),
        Alias("attention.v_proj.", "attention.attention.value."),
        Alias("attention.o_proj.", "attention.output.dense."),
        Alias("mlp.gate_proj.", "mlp.weights_in.", part=0, parts=2),
        Alias("mlp.up_proj.", "mlp.weights_in.", part=1, parts=2),
        Alias("mlp.down_proj.", "mlp.weights_out."),
    )
    anchor = "embeddings.patch_embeddings.projection.weight"
    return Family(module, tower, anchor, ("embeddings",), "encoder.layer", (), aliases)


FAMILIES = {  # model_type of the whole model, and of a tower saved alone
    "janus": _JANUS,
    "siglip": _SIGLIP,  # also the fixed-resolution checkpoints of SigLIP 2
    "siglip_vision_model": _SIGLIP,
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "dinov2": _dinov2("dinov2.modeling_dinov2", "Dinov2Model"),
    "dinov2_with_registers": _dinov2(
        "dinov2_with_registers.modeling_dinov2_with_registers", "Dinov2WithRegistersModel"
    ),
}
_NAFLEX = ("siglip2", "siglip2_vision_model")


@dataclass(frozen=True)
class Tower:
    """The parts of a vision tower that embeddings need.

    Args:
        embeddings: pixels ``(n, channel, s, s)`` -> tokens ``(n, prefix + token, feature)``.
        layers: the transformer layers from the first to the deepest one wanted.
        layer_arguments: what a layer takes beside the hidden state.
        image_size: ``s``, side of the square input in pixels.
        n_channels: of the input.
        n_prefix: tokens that stand before those of the patches (class token, registers).
        n_tokens: tokens of the patches.
        width: features of a token.
        facts: what the weights do not show but the output depends on.
    """

    embeddings: nn.Module
    layers: nn.ModuleList
    layer_arguments: tuple[None, ...]
    image_size: int
    n_channels: int
    n_prefix: int
    n_tokens: int
    width: int
    facts: tuple[str, ...]


def tower_family(folder: Path) -> Family:
    """Look up the family of a checkpoint by the ``model_type`` of its configuration.

    Raises:
        InputError: when it is none of `FAMILIES`.
    """
    model_type = read_config(folder).get("model_type")
    if model_type in _NAFLEX:
        raise InputError(
            f"encoder must take images of one fixed size, got a NaFlex checkpoint ({model_type}) "
            f"in {folder}; use a fixed-size SigLIP 2, such as google/siglip2-large-patch16-384"
        )
    if model_type not in FAMILIES:
        raise InputError(
            f"encoder must be a checkpoint of model_type {', '.join(FAMILIES)}, got {model_type!r} "
            f"in {folder}; point encoder.path at one, such as deepseek-community/Janus-Pro-1B"
        )
    return FAMILIES[model_type]


def load_tower(folder: Path, family: Family, levels: tuple[int, ...], dtype: torch.dtype) -> Tower:
    """Load the vision tower of a checkpoint up to the deepest level.

    Args:
        folder: a checkpoint.
        family: what `tower_family` says of it.
        levels: layers whose outputs are wanted, counted from 1.
        dtype: of the weights.

    Returns:
        the tower, on the CPU.

    Raises:
        InputError: when the checkpoint lacks weights or is not that deep.
    """
    model = getattr(import_module(f"transformers.models.{family.module}"), family.tower)
    config: Any = model.config_class.from_pretrained(folder)
    _check_levels(levels, config.num_hidden_layers, folder)
    config.num_hidden_layers = max(levels)
    with torch.device("meta"):  # no memory, no random numbers: the weights come from the file
        tower = model._from_config(config, attn_implementation="sdpa")
    embeddings = nn.Sequential(*(tower.get_submodule(name) for name in family.embeddings))
    layers: Any = tower.get_submodule(family.layers)
    side, patch = _side(config, "image_size"), _side(config, "patch_size")
    pixels = torch.empty(1, config.num_channels, side, side, device="meta")
    n_all, width = embeddings(pixels).shape[1:]
    _fill(tower, family, folder, dtype)
    n_tokens = (side // patch) ** 2
    shape = (side, config.num_channels, n_all - n_tokens, n_tokens, width)
    return Tower(embeddings, layers, family.layer_arguments, *shape, facts=_facts(config))


def _check_levels(levels: tuple[int, ...], depth: int, folder: Path) -> None:
    if not levels or len(set(levels)) != len(levels) or min(levels) < 1 or max(levels) > depth:
        raise InputError(
            f"levels must be different layers from 1 to the encoder's depth {depth}, got "
            f"{list(levels)} for {folder}; set encoder.levels within it"
        )


def _side(config: Any, name: str) -> int:
    value = getattr(config, name)
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise InputError(f"{name} of the encoder must be square, got {value}; use another encoder")
    return int(sides.pop())


def _facts(config: Any) -> tuple[str, ...]:
    names = ("model_type", "num_attention_heads", "hidden_act", "layer_norm_eps")
    return tuple(f"{name}={getattr(config, name)}" for name in names)


def _fill(tower: nn.Module, family: Family, folder: Path, dtype: torch.dtype) -> None:
    """Put the stored weights of the parts that are kept in the place of the meta tensors."""
    kept = tuple(f"{name}." for name in (*family.embeddings, family.layers))
    shapes = {n: value.shape for n, value in tower.state_dict().items() if n.startswith(kept)}
    files = weight_files(folder)
    prefix = _prefix(files, family.anchor, folder)
    uses: dict[str, list[tuple[str, Alias]]] = {}
    for own in shapes:
        stored, alias = _stored(own, prefix, files, family.aliases, folder)
        uses.setdefault(stored, []).append((own, alias))
    weights: dict[str, Tensor] = {}
    for stored, value in read_tensors({name: files[name] for name in uses}):
        for own, alias in uses[stored]:
            piece = value.chunk(alias.parts)[alias.part].to(dtype)
            if piece.shape != shapes[own]:
                raise InputError(
                    f"weights must have the shapes that config.json asks for, {stored} "
                    f"{tuple(shapes[own])}, got {tuple(piece.shape)} in {folder}; fetch it again"
                )
            weights[own] = piece
    tower.load_state_dict(weights, strict=False, assign=True)
    for module in tower.modules():
        for name, value in module.named_buffers(recurse=False):
            if name == "position_ids":  # counted up, not kept in checkpoints
                module.register_buffer(name, torch.arange(value.shape[-1])[None], persistent=False)


def _prefix(files: dict[str, Path], anchor: str, folder: Path) -> str:
    found = [name for name in files if name == anchor or name.endswith(f".{anchor}")]
    if len(found) != 1:
        raise InputError(
            f"checkpoint must hold the weights of one vision tower, got {len(found)} of the name "
            f"{anchor} in {folder}; fetch it again"
        )
    return found[0].removesuffix(anchor)


def _stored(
    own: str, prefix: str, files: dict[str, Path], aliases: tuple[Alias, ...], folder: Path
) -> tuple[str, Alias]:
    """Find under which name, and as which piece of it, a weight is stored."""
    for alias in (Alias("", ""), *(alias for alias in aliases if alias.own in own)):
        name = prefix + own.replace(alias.own, alias.stored)
        if name in files:
            return name, alias
    raise InputError(
        f"checkpoint must hold the vision tower's weights, got none for {prefix}{own} in {folder}; "
        "fetch it again"
    )
