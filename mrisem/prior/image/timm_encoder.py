"""Networks of timm as encoders: feature maps of their stages or blocks, as tokens.

timm is an optional extra: ``pip install 'mrisem[encoders]'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.prior.image.encoder import FrozenEncoder
from mrisem.prior.image.levels import Dtype, check_levels, map_tokens, torch_dtype
from mrisem.prior.image.preparation import Preparation
from mrisem.prior.weights import read_tensors, refuse_missing


class FeatureMaps(nn.Module):
    """Tokens of feature maps of a timm network.

    Args:
        network: network of timm with ``forward_intermediates``.
        levels: stages or blocks, counted from 1.
        grid: number of tokens along y and x; None: one token for each pixel of a map.
    """

    def __init__(self, network: Any, levels: tuple[int, ...], grid: int | None) -> None:
        super().__init__()
        self.network, self.levels, self.grid = network, levels, grid

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Map pixels ``(n, channel, y, x)`` to ``(n, token, feature)`` for each level.

        The feature maps are taken before any final norm.
        """
        # timm returns the maps in ascending order, whatever the order of the indices
        ascending = sorted(self.levels)
        maps = self.network.forward_intermediates(
            pixels,
            indices=[level - 1 for level in ascending],
            stop_early=True,
            intermediates_only=True,
            output_fmt="NCHW",
        )
        return tuple(map_tokens(maps[ascending.index(level)], self.grid) for level in self.levels)


def load_timm_encoder(
    model_name: str,
    levels: Sequence[int],
    checkpoint: str | None = None,
    grid: Annotated[int, Ge(1)] = 24,
    image_size: int | None = None,
    dtype: Dtype = "auto",
    pad_value: float | None = None,
) -> FrozenEncoder:
    """Load a network of timm as an encoder.

    Args:
        model_name: name in timm, such as ``resnet50.a1_in1k``.
        levels: stages (convolutional networks) or blocks (ViT), counted from 1.
        checkpoint: safetensors file with the network's weights under timm's names; None: timm's
            weights for the model name, from its cache or the hub.
        grid: number of tokens along y and x (see `map_tokens`).
        image_size: side of the input, pixels; None: the network's own size if it is fixed, else
            that of the images.
        dtype: dtype of weights and embeddings; ``auto``: bfloat16 if torch finds a CUDA device,
            else float32.
        pad_value: value around small images, in normalised units; None: black.

    Returns:
        encoder on the CPU.

    Raises:
        InputError: when timm is missing, or the network, weights or levels cannot be used.
    """
    weights, file = None, Path(checkpoint or "").expanduser()
    if checkpoint is not None:
        if file.suffix != ".safetensors" or not file.is_file():
            raise InputError(
                f"encoder.checkpoint must be an existing safetensors file, got {checkpoint!r}; "
                "save the network's state_dict with safetensors.torch.save_file"
            )
        weights = read_tensors(file, "")
    network = create_network(model_name, weights, file)
    settings = network.pretrained_cfg
    if image_size is None and settings.get("fixed_input_size"):
        image_size = settings["input_size"][-1]
    normalisation = settings["mean"], settings["std"]
    prepare = Preparation(image_size, settings["input_size"][0], normalisation, pad_value)
    return freeze_network(network, model_name, prepare, tuple(levels), grid, dtype)


def create_network(model_name: str, weights: dict[str, Tensor] | None, place: Path) -> Any:
    """Create a network of timm without its classifier.

    Args:
        model_name: name in timm.
        weights: name -> weight; None: timm's own weights.
        place: file of the weights, for messages.

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
        # timm draws random weights first, which are replaced: keep the global generator as it is
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model(model_name, pretrained=weights is None, num_classes=0)
    except Exception as error:  # unknown name, no network, no weights: of different classes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"encoder.model_name must be a network of timm whose weights are cached or can be "
            f"fetched, got {model_name!r} ({reason}); see timm.list_models()"
        ) from error
    if weights is not None:
        try:
            missing, _ = network.load_state_dict(weights, strict=False)
        except RuntimeError as error:  # the shapes differ
            raise InputError(
                f"weights must have the shapes of {model_name}, got {place} "
                f"({str(error).splitlines()[-1].strip()}); set encoder.model_name to the network "
                "that they belong to"
            ) from error
        refuse_missing(sorted(missing), place)
    return network


def freeze_network(
    network: Any,
    model_name: str,
    prepare: Preparation,
    levels: tuple[int, ...],
    grid: int | None,
    dtype: Dtype,
) -> FrozenEncoder:
    """Make an encoder from a network of timm; layers beyond the deepest level are dropped.

    Args:
        network: network of timm.
        model_name: name of the network, for messages and the fingerprint.
        prepare: preparation of images for the network.
        levels: stages or blocks, counted from 1.
        grid: number of tokens along y and x; None: feature maps are not averaged, and all have the
            same size.
        dtype: dtype of weights and embeddings.

    Raises:
        InputError: when the network has no such levels, or no feature maps.
    """
    if not hasattr(network, "forward_intermediates"):
        raise InputError(
            "encoder must be a network with feature maps (forward_intermediates of timm), got "
            f"{model_name}; set encoder.model_name to another one"
        )
    check_levels(levels, len(network.feature_info), model_name)
    network.prune_intermediate_layers([level - 1 for level in levels], prune_norm=True)
    features = FeatureMaps(network, levels, grid).to(torch_dtype(dtype)).eval()
    _, *own_size = network.pretrained_cfg["input_size"]
    size = own_size if prepare.image_size is None else [prepare.image_size] * 2
    # one image of zeros shows the widths and the number of tokens
    with torch.no_grad():
        pixels = prepare(torch.zeros(1, *size)).to(torch_dtype(dtype))
        shapes = [tokens.shape for tokens in features(pixels)]
    widths, facts = tuple(shape[-1] for shape in shapes), (f"timm={model_name}", f"grid={grid}")
    return FrozenEncoder(features, prepare, levels, widths, shapes[0][1], (facts, levels))
