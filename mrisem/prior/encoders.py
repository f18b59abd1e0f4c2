"""The frozen vision tower that turns magnitude images into token embeddings.

Only what is needed is read and kept: the tower's weights (no language model, no image generator),
and of its layers those up to the deepest level asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mrisem.physics.fourier import center_crop
from mrisem.prior.checkpoints import Normalisation, read_normalisation, resolve_checkpoint
from mrisem.prior.towers import Tower, load_tower, tower_family
from mrisem.types import InputError


class FrozenEncoder(nn.Module):
    """Vision tower with frozen weights: gradients flow to the image and nowhere else.

    Level ``l`` is the output of transformer layer ``l``, counted from 1, before the tower's final
    norm: ``hidden_states[l]`` in transformers (method: Feng et al., arXiv:2511.19641; levels 1, 13
    and 24 of Janus-Pro). Prefix tokens (class token, registers) take part in the layers and are
    dropped from what is returned: token ``t`` is patch ``t``, row by row.

    Args:
        tower: embeddings and layers, up to the deepest level.
        levels: which layers' outputs are returned, in this order.
        normalisation: maps [0, 1] to the encoder's input range.
        pad_value: what surrounds an image smaller than the input, in normalised units; None is
            black, which is -1 for a mean and std of .5 (the released code pads with 0, mid-grey).
    """

    mean: Tensor
    std: Tensor
    frame: Tensor

    def __init__(
        self,
        tower: Tower,
        levels: tuple[int, ...],
        normalisation: Normalisation,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        self.embeddings, self.layers = tower.embeddings, tower.layers
        self.levels, self.image_size, self.pad_value = levels, tower.image_size, pad_value
        self.n_prefix, self.n_tokens, self.width = tower.n_prefix, tower.n_tokens, tower.width
        self._layer_arguments = tower.layer_arguments
        mean = _channels(normalisation.mean, tower.n_channels, "image_mean")
        std = _channels(normalisation.std, tower.n_channels, "image_std")
        frame = -mean / std if pad_value is None else torch.full_like(mean, pad_value)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.register_buffer("frame", frame, persistent=False)
        self.requires_grad_(False).eval()
        self.fingerprint = self._fingerprint(tower.facts)

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
        margins = self._margins(*size)
        around = self.frame * pad(self.frame.new_zeros(size), margins, value=1.0)
        framed = pad(center_crop(pixels, size), margins) + around
        return framed.to(next(self.embeddings.parameters()).dtype)

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
            result = layer(hidden, *self._layer_arguments)
            hidden = result[0] if isinstance(result, tuple) else result
            outputs[level] = hidden[:, self.n_prefix :]
        return tuple(outputs[level] for level in self.levels)

    def _margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        side = self.image_size
        left, top = side // 2 - width // 2, side // 2 - height // 2
        return left, side - width - left, top, side - height - top

    def _fingerprint(self, facts: tuple[str, ...]) -> str:
        digest = hashlib.sha256()
        preprocessing = [value.flatten().tolist() for value in (self.mean, self.std, self.frame)]
        digest.update(repr((facts, self.levels, self.image_size, preprocessing)).encode())
        for name, weight in sorted(self.state_dict().items()):
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(memoryview(weight.contiguous().view(-1).view(torch.uint8).numpy()))
        return digest.hexdigest()


def load_encoder(
    path: str,
    levels: Sequence[int],
    dtype: torch.dtype | str = torch.float32,
    pad_value: float | None = None,
    revision: str | None = None,
) -> FrozenEncoder:
    """Load the vision tower of a checkpoint (see `mrisem.prior.towers`), up to the deepest level.

    Args:
        path: ``janus_mini``, a folder, or a hub name such as ``deepseek-community/Janus-Pro-1B``.
        levels: transformer layers whose outputs are wanted, counted from 1.
        dtype: of weights and embeddings, ``float32``, ``bfloat16`` or ``float16``.
        pad_value: of the frame around small images, in normalised units; None is black.
        revision: commit, tag or branch of a hub name (None: its main branch); a folder has none,
            and the value is not looked at.

    Returns:
        the encoder, on the CPU.

    Raises:
        InputError: when path, checkpoint, level or dtype do not serve.
    """
    dtype, chosen = _dtype(dtype), tuple(levels)
    folder = resolve_checkpoint(path, revision)
    family, normalisation = tower_family(folder), read_normalisation(folder)
    tower = load_tower(folder, family, chosen, dtype)
    return FrozenEncoder(tower, chosen, normalisation, pad_value)


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    name = str(dtype).removeprefix("torch.")
    if name not in known:
        raise InputError(f"encoder.dtype must be one of {sorted(known)}, got {dtype!r}; set one")
    return known[name]


def _channels(values: tuple[float, ...], n_channels: int, name: str) -> Tensor:
    if len(values) not in (1, n_channels):
        raise InputError(
            f"{name} must have one value or one a channel, {n_channels}, got {list(values)}; "
            "save the model's own image processor beside it"
        )
    return torch.tensor(values, dtype=torch.float32).expand(n_channels)[:, None, None].clone()
