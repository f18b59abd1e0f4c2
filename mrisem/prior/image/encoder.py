"""The frozen vision tower that turns magnitude images into token embeddings.

Only what is needed is read and kept: the tower's weights (no language model, no image generator),
and of its layers those up to the deepest level asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.prior.checkpoints import Normalisation, read_normalisation, resolve_checkpoint
from mrisem.prior.image.families import Tower, load_tower, tower_family
from mrisem.prior.image.preparation import Preparation


class Encoder(Protocol):
    """What the image route needs of an encoder; any object of this form serves.

    Attributes:
        levels: names (numbers) of the levels, in the order of the outputs.
        widths: features of a token at each level.
        n_tokens: tokens of an image, the same at every level.
        fingerprint: hash of all that the output depends on; it names cached banks.
    """

    levels: tuple[int, ...]
    widths: tuple[int, ...]
    n_tokens: int
    fingerprint: str

    def __call__(self, magnitude: Tensor) -> tuple[Tensor, ...]:
        """Embed images, differentiably.

        Args:
            magnitude: ``(n, y, x)`` float32, any unit, not negative.

        Returns:
            one ``(n, token, feature)`` for each level.
        """
        ...


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

    def __init__(
        self,
        tower: Tower,
        levels: tuple[int, ...],
        normalisation: Normalisation,
        pad_value: float | None = None,
    ) -> None:
        super().__init__()
        self.embeddings, self.layers = tower.embeddings, tower.layers
        self.levels, self.image_size = levels, tower.image_size
        self.n_prefix, self.n_tokens = tower.n_prefix, tower.n_tokens
        self.widths = (tower.width,) * len(levels)
        self._layer_arguments = tower.layer_arguments
        self.prepare = Preparation(tower.image_size, tower.n_channels, normalisation, pad_value)
        self.requires_grad_(False).eval()
        self.fingerprint = self._fingerprint(tower.facts)

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stay in evaluation mode, whatever the surrounding task is in."""
        return super().train(False)

    def forward(self, magnitude: Tensor) -> tuple[Tensor, ...]:
        """Embed magnitude images.

        Args:
            magnitude: ``(n, y, x)`` real, any unit, not negative.

        Returns:
            ``(n, token, feature)`` per level, in the encoder's dtype.
        """
        dtype = next(self.embeddings.parameters()).dtype
        hidden = self.embeddings(self.prepare(magnitude).to(dtype))
        outputs: dict[int, Tensor] = {}
        for level, layer in enumerate(self.layers, start=1):
            result = layer(hidden, *self._layer_arguments)
            hidden = result[0] if isinstance(result, tuple) else result
            outputs[level] = hidden[:, self.n_prefix :]
        return tuple(outputs[level] for level in self.levels)

    def _fingerprint(self, facts: tuple[str, ...]) -> str:
        digest = hashlib.sha256()
        digest.update(repr((facts, self.levels, *self.prepare.facts())).encode())
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
    """Load the vision tower of a checkpoint, up to the deepest level.

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
