"""Janus's own image tokeniser as a generator: what it can draw is where an image should be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.prior.checkpoints import read_json, read_model_type, resolve_checkpoint
from mrisem.prior.image.encoder import fingerprint
from mrisem.prior.image.preparation import Preparation
from mrisem.prior.weights import load_config, load_model

_NAMES = {r"^(model\.)?vqmodel\.": ""}  # prefix of its weights in a checkpoint -> in the model


class VQGenerator(nn.Module):
    """Projection of an image onto what quantised codes can say; the pull is ``x - P(x)``.

    ``P(x) = decoder(nearest codes of encoder(x))``.

    Args:
        model: ``JanusVQVAE`` of transformers.
        side: side of the square to which images are cropped or padded, pixels.
    """

    def __init__(self, model: Any, side: int) -> None:
        super().__init__()
        self.model = model
        self.prepare_pixels = Preparation(side, model.config.in_channels, (0.5, 0.5))
        self.requires_grad_(False).eval()
        facts = repr(("janus_vq", *self.prepare_pixels.facts()))
        self.fingerprint = fingerprint(facts, self.state_dict())

    def train(self, mode: bool = True) -> VQGenerator:
        """Stay in evaluation mode, also within a task that is trained."""
        return super().train(False)

    def prepare(self, magnitude: Tensor) -> Tensor:
        """See `Generator`: pixels in [-1, 1]."""
        pixels: Tensor = self.prepare_pixels(magnitude)
        return pixels

    @torch.no_grad()
    def pull(self, state: Tensor, acquisition: str, iteration: int, copies: int = 1) -> Tensor:
        """See `Generator`; nothing is drawn, and no text is read."""
        codes = self.model.encode(state).image_tokens
        projection: Tensor = self.model.decode(codes.reshape(len(state), -1))
        return state - projection


def load_janus_vq(path: str, revision: str | None = None) -> VQGenerator:
    """Load the image tokeniser of a Janus checkpoint.

    Args:
        path: a folder, or a hub name such as ``deepseek-community/Janus-Pro-1B``. ``janus_mini``
            was never trained to draw.
        revision: commit, tag or branch of a hub name; None: its main branch.

    Returns:
        generator on the CPU.

    Raises:
        InputError: when the checkpoint has none, or was never trained to draw.
    """
    from transformers import JanusConfig, JanusVQVAE

    folder = resolve_checkpoint(path, revision, "generator")
    if path == "janus_mini" or (model_type := read_model_type(folder)) != "janus":
        held = path if path == "janus_mini" else f"model_type {model_type!r} in {folder}"
        raise InputError(
            f"generator=janus_vq needs a Janus that can draw, got {held}; set "
            "generator.path=deepseek-community/Janus-Pro-1B or its folder"
        )
    config = load_config(JanusConfig, folder).vq_config
    if "vq_config" not in read_json(folder / "config.json"):
        raise InputError(
            f"generator=janus_vq needs a vq_config in config.json, got none in {folder}; fetch the "
            "whole checkpoint"
        )
    model = load_model(JanusVQVAE, folder, config, torch.float32, _NAMES)
    # each level but the last halves the image
    side = config.num_patches * 2 ** (len(config.channel_multiplier) - 1)
    return VQGenerator(model, side)
