"""Any network of timm as an encoder: feature maps of its stages or blocks, as tokens.

timm is an optional extra: ``pip install 'mrisem[encoders]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mrisem.errors import InputError
from mrisem.prior.checkpoints import Normalisation
from mrisem.prior.image.encoder import FrozenEncoder, as_dtype
from mrisem.prior.image.preparation import Preparation
from mrisem.prior.weights import read_tensors, refuse_missing


class FeatureMaps(nn.Module):
    """Feature maps of a timm network, averaged to a square grid of tokens.

    Args:
        network: with timm's `forward_intermediates`.
        levels: stages or blocks, counted from 1.
        grid: tokens along y and x (adaptive average pooling); None: each map as it is.
    """

    def __init__(self, network: nn.Module, levels: tuple[int, ...], grid: int | None) -> None:
        super().__init__()
        self.network, self.levels, self.grid = network, levels, grid

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """``(n, channel, y, x)`` -> ``(n, token, feature)`` for each level, before any norm."""
        ascending, network = sorted(self.levels), self.network
        maps = network.forward_intermediates(  # type: ignore[operator]
            pixels,
            indices=[level - 1 for level in ascending],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NCHW",
        )
        if self.grid is not None:
            maps = [adaptive_avg_pool2d(features, self.grid) for features in maps]
        tokens = [rearrange(features, "n f y x -> n (y x) f") for features in maps]
        return tuple(tokens[ascending.index(level)] for level in self.levels)


def load_timm_encoder(
    model_name: str,
    levels: Sequence[int],
    checkpoint: str | None = None,
    grid: int = 24,
    image_size: int | None = None,
    dtype: torch.dtype | str = torch.float32,
    pad_value: float | None = None,
) -> FrozenEncoder:
    """Load a network of timm as an encoder.

    Args:
        model_name: name in timm, such as ``resnet50.a1_in1k``.
        levels: stages (convolutional networks) or blocks (ViT), counted from 1.
        checkpoint: safetensors file with the network's weights, by timm's names; None: timm's own
            weights for that name, from its cache or the hub.
        grid: number of tokens along y and x, to which feature maps are averaged.
        image_size: side of the input in pixels; None: the network's own where it is fixed, else
            that of the images.
        dtype: dtype of weights and embeddings, ``float32``, ``bfloat16`` or ``float16``.
        pad_value: value around small images, in normalised units; None is black.

    Returns:
        the encoder, on the CPU.

    Raises:
        InputError: when timm, network, weights or levels do not serve.
    """
    stored = as_dtype(dtype)
    if checkpoint is None:
        network = create_network(model_name)
    else:
        file = Path(checkpoint).expanduser()
        if file.suffix != ".safetensors" or not file.is_file():
            raise InputError(
                f"encoder.checkpoint must be an existing safetensors file, got {checkpoint!r}; "
                "save the network's state_dict with safetensors.torch.save_file"
            )
        network = create_network(model_name, read_tensors(file, ""), file)
    settings = network.pretrained_cfg
    if settings.get("fixed_input_size"):
        image_size = image_size or settings["input_size"][-1]
    normalisation = Normalisation(tuple(settings["mean"]), tuple(settings["std"]))
    prepare = Preparation(image_size, settings["input_size"][0], normalisation, pad_value)
    return freeze_network(network, prepare, model_name, tuple(levels), grid, stored)


def create_network(
    model_name: str, weights: dict[str, Tensor] | None = None, place: Path = Path()
) -> Any:
    """Create a network of timm without its classifier.

    Args:
        model_name: name in timm.
        weights: weights by timm's names; None: timm's own.
        place: where the weights come from, for messages.

    Raises:
        InputError: when timm is not installed, does not know the name, or weights do not fit.
    """
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"encoder {model_name} needs the package timm, which is not installed; run "
            "`pip install 'mrisem[encoders]'`"
        ) from error
    try:
        with torch.random.fork_rng(devices=[]):  # timm draws a start, which the weights replace
            network = timm.create_model(model_name, pretrained=weights is None, num_classes=0)
    except Exception as error:  # unknown, offline, no weights: each of its own class and cause
        raise InputError(
            f"encoder.model_name must be a network of timm whose weights are cached or can be "
            f"fetched, got {model_name!r} ({_first_line(error)}); see timm.list_models()"
        ) from error
    if weights is not None:
        try:
            missing, _ = network.load_state_dict(weights, strict=False)
        except RuntimeError as error:  # of other shapes
            raise InputError(
                f"weights must have the shapes of {model_name}, got {place} "
                f"({str(error).splitlines()[-1].strip()}); set the name that they were trained by"
            ) from error
        refuse_missing(sorted(missing), place)
    return network


def freeze_network(
    network: Any,
    prepare: Preparation,
    model_name: str,
    levels: tuple[int, ...],
    grid: int | None,
    dtype: torch.dtype,
) -> FrozenEncoder:
    """Make an encoder of a network of timm; what is behind the deepest level is dropped.

    Args:
        network: as `create_network` makes it.
        prepare: magnitude images -> its input.
        model_name: name in timm, for the fingerprint.
        levels: stages or blocks, counted from 1.
        grid: tokens along y and x; None: the maps as they are, all of one size.
        dtype: dtype of weights and embeddings.

    Raises:
        InputError: when the network has no such levels, or no feature maps.
    """
    if not hasattr(network, "forward_intermediates"):
        raise InputError(
            f"encoder must be a network with feature maps (forward_intermediates of timm), got "
            f"{model_name}; choose another one"
        )
    if grid is not None and grid < 1:
        raise InputError(f"grid must be an integer of at least 1, got {grid!r}; set encoder.grid")
    depth = len(network.feature_info)
    if not levels or len(set(levels)) != len(levels) or min(levels) < 1 or max(levels) > depth:
        raise InputError(
            f"levels must be different stages or blocks from 1 to the encoder's depth {depth}, "
            f"got {list(levels)} for {model_name}; set encoder.levels within it"
        )
    network.prune_intermediate_layers([level - 1 for level in levels], prune_norm=True)
    features = FeatureMaps(network, levels, grid).to(dtype).eval()
    channels, *own_size = network.pretrained_cfg["input_size"]
    size = own_size if prepare.image_size is None else [prepare.image_size] * 2
    with torch.no_grad():
        shapes = [level.shape for level in features(torch.zeros(1, channels, *size, dtype=dtype))]
    facts = (f"timm={model_name}", f"grid={grid}")
    widths = tuple(shape[-1] for shape in shapes)
    return FrozenEncoder(features, prepare, levels, widths, shapes[0][1], facts)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
