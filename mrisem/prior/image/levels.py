"""Common parts of encoders: dtypes, checks of levels, and tokens of feature maps."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from mrisem.errors import InputError

# auto: bfloat16 if torch finds a CUDA device, else float32
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def torch_dtype(name: Dtype) -> torch.dtype:
    """Return the torch dtype with a given name.

    >>> torch_dtype("bfloat16")
    torch.bfloat16
    """
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def check_levels(levels: tuple[int, ...], depth: int, network: str | Path) -> None:
    """Raise InputError unless the levels are different integers from 1 to ``depth``.

    Args:
        levels: levels that are asked for.
        depth: number of layers of the network.
        network: name or folder of the network, for the message.
    """
    allowed = range(1, depth + 1)
    if not levels or len(set(levels)) != len(levels) or not set(levels) <= {*allowed}:
        raise InputError(
            f"levels must be different integers from 1 to the encoder's depth {depth}, got "
            f"{list(levels)} for {network}; set encoder.levels within this range"
        )


def map_tokens(features: Tensor, grid: int | None) -> Tensor:
    """Turn feature maps into tokens, row by row.

    Adaptive average pooling to ``grid x grid`` tokens: token ``(i, j)`` is the mean over the rows
    from ``floor(i Y / grid)`` to just before ``ceil((i + 1) Y / grid)``, and over columns likewise.
    Windows overlap where the size is not a multiple of the grid.

    Args:
        features: ``(n, feature, y, x)``.
        grid: number of tokens along y and x; None: one token for each pixel.

    Returns:
        ``(n, token, feature)``.
    """
    if grid is not None:
        features = adaptive_avg_pool2d(features, grid)
    return rearrange(features, "n feature y x -> n (y x) feature")
