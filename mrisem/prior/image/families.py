"""Vision towers of transformers with a common interface: pixels -> hidden states of levels.

A family is one entry of `FAMILIES`. Image size, patch grid, channels and depth come from the
checkpoint's configuration. Only the weights up to the deepest level are read.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.prior.checkpoints import read_model_type
from mrisem.prior.image.levels import check_levels
from mrisem.prior.weights import load_config, load_model

# model_type of a whole model, or of a tower saved alone -> class of the tower, name of its final
# norm
FAMILIES = {
    "janus": ("JanusVisionModel", "post_layernorm"),
    "siglip": ("SiglipVisionModel", "post_layernorm"),  # also SigLIP 2 of fixed resolution
    "siglip_vision_model": ("SiglipVisionModel", "post_layernorm"),
    "clip": ("CLIPVisionModel", "post_layernorm"),
    "clip_vision_model": ("CLIPVisionModel", "post_layernorm"),
    "dinov2": ("Dinov2Model", "layernorm"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "layernorm"),
    "dinov3_vit": ("DINOv3ViTModel", "norm"),
}
# Prefix of the tower's weights in the checkpoint of a whole model -> prefix in the tower.
_NAMES = {r"^(model\.)?vision_model\.": ""}
_NAFLEX = ("siglip2", "siglip2_vision_model")
# Configuration values on which outputs depend and which the weights do not show.
_FACTS = ("model_type", "num_attention_heads", "hidden_act", "layer_norm_eps")
_FACTS_OF_SOME = ("rope_theta", "rope_parameters")


class HiddenStates(nn.Module):
    """Outputs of some layers of a vision tower, without class token and registers.

    Args:
        tower: vision model of transformers.
        levels: layers, counted from 1.
        n_tokens: number of patches of an image.
    """

    def __init__(self, tower: nn.Module, levels: tuple[int, ...], n_tokens: int) -> None:
        super().__init__()
        self.tower, self.levels, self.n_tokens = tower, levels, n_tokens
        # another image size needs interpolated position embeddings
        other_size = n_tokens != input_grid(tower.config)[1]
        can_interpolate = "interpolate_pos_encoding" in inspect.signature(tower.forward).parameters
        # towers without this option take images of any size
        self.options = {"interpolate_pos_encoding": True} if other_size and can_interpolate else {}

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map pixels ``(n, channel, s, s)`` to ``(n, token, feature)`` for each level."""
        # hidden_states[0] is the patch embedding; class token and registers come first
        states = self.tower(pixels, output_hidden_states=True, **self.options).hidden_states
        return tuple(states[level][:, -self.n_tokens :] for level in self.levels)


def load_tower(folder: Path, levels: tuple[int, ...], dtype: torch.dtype) -> nn.Module:
    """Load the vision tower of a checkpoint up to the deepest level, without its final norm.

    Raises:
        InputError: when the checkpoint has another family, lacks weights or has too few layers.
    """
    import transformers

    name, norm = _family(folder)
    tower_class = getattr(transformers, name)
    config = load_config(tower_class.config_class, folder)
    input_grid(config)
    check_levels(levels, config.num_hidden_layers, folder)
    # the deeper layers and the final norm are neither read nor run
    config.num_hidden_layers = max(levels)
    config.vision_use_head = False  # SigLIP's pooling after the last layer
    tower: nn.Module = load_model(tower_class, folder, config, dtype, _NAMES, (norm, "mask_token"))
    setattr(tower, norm, nn.Identity())
    return tower


def input_grid(config: Any) -> tuple[int, int]:
    """Read the side of a tower's input in pixels, and the number of its patches."""
    side, patch = _side(config, "image_size"), _side(config, "patch_size")
    return side, (side // patch) ** 2


def tower_facts(config: Any) -> tuple[str, ...]:
    """List the configuration values on which outputs depend, for the fingerprint."""
    names = (*_FACTS, *(name for name in _FACTS_OF_SOME if hasattr(config, name)))
    return tuple(f"{name}={getattr(config, name)}" for name in names)


def _family(folder: Path) -> tuple[str, str]:
    """Look up the family of a checkpoint: class of the tower and name of its final norm."""
    model_type = read_model_type(folder)
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


def _side(config: Any, name: str) -> int:
    """Read a size that is one number, or equal along y and x."""
    value = getattr(config, name)
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise InputError(f"{name} of the encoder must be square, got {value}; use another encoder")
    return int(sides.pop())
