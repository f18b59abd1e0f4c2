"""The frozen vision tower that turns magnitude images into token embeddings.

Only what is needed is read and kept: the tower's weights (no language model, no image generator),
and of its layers those up to the deepest level asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mrisem.physics.fourier import center_crop
from mrisem.prior.checkpoints import (
    Normalisation,
    read_config,
    read_normalisation,
    read_tensors,
    resolve_checkpoint,
    weight_files,
)
from mrisem.types import InputError

_ANCHOR = "embeddings.patch_embedding.weight"  # names the tower's prefix among all weights


class FrozenEncoder(nn.Module):
    """Vision tower with frozen weights: gradients flow to the image and nowhere else.

    Level ``l`` is the output of transformer layer ``l``, counted from 1, before the tower's final
    norm: ``hidden_states[l]`` in transformers (method: Feng et al., arXiv:2511.19641; levels 1, 13
    and 24 of Janus-Pro).

    Args:
        embeddings: pixels ``(n, channel, s, s)`` -> tokens ``(n, token, feature)``.
        layers: the transformer layers 1 to the deepest level.
        levels: which layers' outputs are returned, in this order.
        image_size: ``s``, side of the encoder's square input in pixels.
        normalisation: maps [0, 1] to the encoder's input range.
        pad_value: what surrounds an image smaller than ``s``, in normalised units; -1 is black for
            a mean and std of .5 (the released code pads with 0, mid-grey).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        embeddings: nn.Module,
        layers: nn.ModuleList,
        levels: tuple[int, ...],
        image_size: int,
        normalisation: Normalisation,
        pad_value: float = -1.0,
    ) -> None:
        super().__init__()
        self.embeddings, self.layers = embeddings, layers
        self.levels, self.image_size, self.pad_value = levels, image_size, pad_value
        positions = embeddings.get_parameter("position_embedding.weight")
        self.n_tokens, self.width = int(positions.shape[0]), int(positions.shape[1])
        self.register_buffer("mean", _channels(normalisation.mean), persistent=False)
        self.register_buffer("std", _channels(normalisation.std), persistent=False)
        self.requires_grad_(False).eval()
        self.fingerprint = self._fingerprint()

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stay in evaluation mode, whatever the surrounding task is in."""
        return super().train(False)

    def preprocess(self, magnitude: Tensor) -> Tensor:
        """Map magnitude images to the encoder's input, differentiably.

        Divide each image by its own maximum over all its pixels (plainly: the gradient also runs
        through the maximum), normalise, centre crop or pad to ``s`` (pixel ``n // 2`` stays the
        centre), repeat to the encoder's channels. An image of zeros becomes black.

        Args:
            magnitude: ``(n, y, x)`` real, any unit, not negative.

        Returns:
            ``(n, channel, s, s)`` in the encoder's dtype.

        Raises:
            InputError: when the images are not ``(n, y, x)`` or not real.
        """
        if magnitude.ndim != 3 or not magnitude.is_floating_point():
            raise InputError(
                f"magnitude must be real floating point (n, y, x), got {magnitude.dtype} "
                f"{tuple(magnitude.shape)}; take abs() and combine the coils first"
            )
        peak = magnitude.amax(dim=(-2, -1), keepdim=True)
        relative = magnitude / peak.clamp_min(torch.finfo(magnitude.dtype).tiny)
        pixels = (relative.unsqueeze(1).to(self.mean.dtype) - self.mean) / self.std
        size = (min(pixels.shape[-2], self.image_size), min(pixels.shape[-1], self.image_size))
        framed = pad(center_crop(pixels, size), self._margins(*size), value=self.pad_value)
        return framed.to(self.embeddings.get_parameter("position_embedding.weight").dtype)

    def forward(self, magnitude: Tensor) -> tuple[Tensor, ...]:
        """Embed magnitude images.

        Args:
            magnitude: ``(n, y, x)`` real, any unit, not negative.

        Returns:
            ``(n, token, feature)`` per level, in the encoder's dtype.
        """
        hidden = self.embeddings(self.preprocess(magnitude))
        outputs: dict[int, Tensor] = {}
        for level, layer in enumerate(self.layers, start=1):
            result = layer(hidden, None)
            hidden = result[0] if isinstance(result, tuple) else result
            outputs[level] = hidden
        return tuple(outputs[level] for level in self.levels)

    def _margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        side = self.image_size
        left, top = side // 2 - width // 2, side // 2 - height // 2
        return left, side - width - left, top, side - height - top

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        facts = (self.levels, self.image_size, self.pad_value)
        digest.update(repr((facts, self.mean.tolist(), self.std.tolist())).encode())
        for name, weight in sorted(self.state_dict().items()):
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(memoryview(weight.contiguous().view(-1).view(torch.uint8).numpy()))
        return digest.hexdigest()


def load_encoder(
    path: str,
    levels: Sequence[int],
    dtype: torch.dtype | str = torch.float32,
    pad_value: float = -1.0,
) -> FrozenEncoder:
    """Load the vision tower of a Janus checkpoint, up to the deepest level.

    Args:
        path: ``janus_mini``, a folder, or a hub name such as ``deepseek-community/Janus-Pro-1B``.
        levels: transformer layers whose outputs are wanted, counted from 1.
        dtype: of weights and embeddings, ``float32``, ``bfloat16`` or ``float16``.
        pad_value: of the frame around small images, in normalised units.

    Returns:
        the encoder, on the CPU.

    Raises:
        InputError: when path, checkpoint, level or dtype do not serve.
    """
    dtype = _dtype(dtype)
    folder = resolve_checkpoint(path)
    model_type = read_config(folder).get("model_type")
    if model_type != "janus":
        raise InputError(
            f"encoder must be a checkpoint of model_type 'janus', got {model_type!r} in {folder}; "
            "point encoder.path at one, such as deepseek-community/Janus-Pro-1B"
        )
    normalisation = read_normalisation(folder)
    return _load_janus(folder, tuple(levels), dtype, normalisation, pad_value)


def _load_janus(
    folder: Path,
    levels: tuple[int, ...],
    dtype: torch.dtype,
    normalisation: Normalisation,
    pad_value: float,
) -> FrozenEncoder:
    from transformers import JanusConfig
    from transformers.models.janus.modeling_janus import JanusVisionModel

    config: Any = JanusConfig.from_pretrained(folder).vision_config
    _check_levels(levels, config.num_hidden_layers, folder)
    config.num_hidden_layers = max(levels)
    with torch.device("meta"):  # no memory, no random numbers: the weights come from the file
        tower = JanusVisionModel._from_config(config)
    wanted = [name for name in tower.state_dict() if not name.startswith("post_layernorm.")]
    tower.load_state_dict(_read_tower(folder, wanted, dtype), strict=False, assign=True)
    n_tokens = tower.embeddings.position_embedding.weight.shape[0]
    tower.embeddings.position_ids = torch.arange(n_tokens).unsqueeze(0)  # not kept in checkpoints
    return FrozenEncoder(
        tower.embeddings,
        tower.encoder.layers,
        levels,
        config.image_size,
        normalisation,
        pad_value,
    )


def _read_tower(folder: Path, names: list[str], dtype: torch.dtype) -> dict[str, Tensor]:
    files = weight_files(folder)
    anchors = [name for name in files if name.endswith(f"vision_model.{_ANCHOR}")]
    prefix = anchors[0].removesuffix(_ANCHOR) if len(anchors) == 1 else ""
    missing = [name for name in names if prefix + name not in files]
    if missing:
        raise InputError(
            f"checkpoint must hold the vision tower's weights, got none for {missing[0]} "
            f"({len(missing)} missing) in {folder}; fetch it again"
        )
    wanted = {prefix + name: files[prefix + name] for name in names}
    return {name.removeprefix(prefix): value.to(dtype) for name, value in read_tensors(wanted)}


def _check_levels(levels: tuple[int, ...], depth: int, folder: Path) -> None:
    if not levels or len(set(levels)) != len(levels) or min(levels) < 1 or max(levels) > depth:
        raise InputError(
            f"levels must be different layers from 1 to the encoder's depth {depth}, got "
            f"{list(levels)} for {folder}; set encoder.levels within it"
        )


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    name = str(dtype).removeprefix("torch.")
    if name not in known:
        raise InputError(f"encoder.dtype must be one of {sorted(known)}, got {dtype!r}; set one")
    return known[name]


def _channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]
