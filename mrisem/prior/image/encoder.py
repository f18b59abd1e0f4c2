"""Frozen encoders: differentiable maps from magnitude images to token embeddings.

`Encoder` is the interface that the image route needs. `FrozenEncoder` implements it for every
encoder of this package; `load_encoder` makes one from a checkpoint of transformers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.prior.adapters import merge_adapter
from mrisem.prior.checkpoints import Normalisation, read_normalisation, resolve_checkpoint
from mrisem.prior.image.families import HiddenStates, input_grid, load_tower, tower_facts
from mrisem.prior.image.levels import Dtype, torch_dtype
from mrisem.prior.image.preparation import Preparation

# Earlier names of weights. Fingerprints use them, so that banks on disk stay valid.
_OLDER_NAMES = {
    "tower.embeddings.": "embeddings.0.",
    "tower.encoder.layers.": "layers.",
    "layers.features.": "features.",
}


class Encoder(Protocol):
    """Interface of an encoder in the image route.

    Attributes:
        levels: numbers that name the levels, in the order of the outputs.
        widths: number of features of a token at each level.
        n_tokens: number of tokens of an image, the same at every level.
        fingerprint: hash of all on which the output depends; it names cached banks.
    """

    levels: tuple[int, ...]
    widths: tuple[int, ...]
    n_tokens: int
    fingerprint: str

    def __call__(self, magnitude: Tensor) -> tuple[Tensor, ...]:
        """Embed images, differentiably.

        Args:
            magnitude: ``(n, y, x)`` float32 in any unit, not negative.

        Returns:
            embedding ``(n, token, feature)`` of each level.
        """


class FrozenEncoder(nn.Module):
    """Encoder with frozen weights: gradients reach the image only.

    Args:
        network: map of pixels ``(n, channel, y, x)`` to one ``(n, token, feature)`` a level.
        prepare: map of magnitude images to pixels.
        levels: numbers that name the levels, in the order of the outputs.
        widths: number of features of a token at each level.
        n_tokens: number of tokens of an image.
        facts: values on which the output depends beside the weights and the preparation.
    """

    def __init__(
        self,
        network: nn.Module,
        prepare: Preparation,
        levels: tuple[int, ...],
        widths: tuple[int, ...],
        n_tokens: int,
        facts: tuple[Any, ...],
    ) -> None:
        super().__init__()
        self.network, self.prepare = network, prepare
        self.levels, self.widths, self.n_tokens = levels, widths, n_tokens
        # side of the square about an image's centre that the tokens cover; None: the whole image
        self.extent = prepare.image_size
        self.requires_grad_(False).eval()
        # the hash of the weights names the bank: other weights never read it
        weights = {_older_name(name): weight for name, weight in network.state_dict().items()}
        self.fingerprint = fingerprint(repr((*facts, *prepare.facts())), weights)

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stay in evaluation mode, also within a task that is trained."""
        return super().train(False)

    def forward(self, magnitude: Tensor) -> tuple[Tensor, ...]:
        """See `Encoder`; the embeddings have the dtype of the weights."""
        dtype = next(self.network.parameters()).dtype
        features: tuple[Tensor, ...] = self.network(self.prepare(magnitude).to(dtype))
        return features


def fingerprint(facts: str, weights: Mapping[str, Tensor]) -> str:
    """Hash facts, and names, dtypes, shapes and values of weights."""
    digest = hashlib.sha256(facts.encode())
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def freeze_tower(
    tower: Any,
    levels: tuple[int, ...],
    normalisation: Normalisation,
    pad_value: float | None = None,
    input_size: int | None = None,
) -> FrozenEncoder:
    """Make an encoder from a vision model of transformers.

    Level ``l`` is the output of transformer layer ``l``, counted from 1, before the tower's final
    norm: ``hidden_states[l]`` in transformers (Feng et al., arXiv:2511.19641; levels 1, 13 and 24
    of Janus-Pro). Prefix tokens (class token, registers) pass through the layers but are not
    returned: token ``t`` is patch ``t``, row by row.

    Args:
        tower: vision model on the CPU; layers beyond the deepest level would only take time.
        levels: layers whose outputs are returned, counted from 1.
        normalisation: mean and std that map [0, 1] to the tower's input range.
        pad_value: value around an image that is smaller than the input (see `Preparation`).
        input_size: side to which the input is reduced, pixels; None: the tower's own.

    Raises:
        InputError: when the input size is not a multiple of the patch, or not below the tower's.
    """
    config = tower.config
    side, n_tokens = input_grid(config)
    if input_size is not None:
        patch = round(side / n_tokens**0.5)  # pixels; the grid of patches is square
        if input_size % patch or not patch <= input_size < side:
            raise InputError(
                f"encoder.input_size must be a multiple of the patch ({patch}) below {side}, got "
                f"{input_size}; set encoder.input_size=null for the encoder's own size"
            )
        n_tokens = (input_size // patch) ** 2
    return FrozenEncoder(
        HiddenStates(tower, levels, n_tokens),
        Preparation(side, config.num_channels, normalisation, pad_value, input_size),
        levels,
        (config.hidden_size,) * len(levels),
        n_tokens,
        (tower_facts(config), levels),
    )


def load_encoder(
    path: str,
    levels: Sequence[int],
    dtype: Dtype = "auto",
    pad_value: float | None = None,
    revision: str | None = None,
    input_size: int | None = None,
    adapter: str | None = None,
) -> FrozenEncoder:
    """Load the vision tower of a checkpoint of transformers, up to the deepest level.

    Args:
        path: ``janus_mini``, a folder, or a hub name such as ``deepseek-community/Janus-Pro-1B``;
            its model_type is one of `mrisem.prior.image.families.FAMILIES`.
        levels: transformer layers whose outputs are returned, counted from 1.
        dtype: dtype of weights and embeddings; ``auto``: bfloat16 if torch finds a CUDA device,
            else float32.
        pad_value: value around small images, in normalised units; None: black.
        revision: commit, tag or branch of a hub name; None: its main branch.
        input_size: side to which the input is reduced, pixels: fewer tokens take less time. The
            tower's position embeddings are interpolated. None: the tower's own.
        adapter: folder that `mrisem adapt` has written; None: the model as it is.

    Returns:
        encoder on the CPU.

    Raises:
        InputError: when the path, the checkpoint, the levels or the adapter cannot be used.
    """
    folder, chosen = resolve_checkpoint(path, revision), tuple(levels)
    tower = load_tower(folder, chosen, torch_dtype(dtype))
    if adapter is not None:
        merge_adapter(adapter, folder, {"vision": tower})
    return freeze_tower(tower, chosen, read_normalisation(folder), pad_value, input_size)


def _older_name(name: str) -> str:
    """Return the earlier name of a weight, or its name if it did not change."""
    for prefix, older in _OLDER_NAMES.items():
        if name.startswith(prefix):
            return older + name.removeprefix(prefix)
    return name
