"""Low-rank adaptation of convolutional networks through peft.

Method: Feng et al., arXiv:2511.19641, its per-scan fitting: a pretrained network stays frozen and
only LoRA factors (Hu et al., arXiv:2106.09685), and the lambda_k of an unrolled network, are
trained.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.networks.weight_files import summary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoRA:
    """``W = W_0 + alpha / rank * B A``: ``W_0`` frozen, at the start ``B = 0`` and ``A`` random.

    ``A`` is a convolution of the layer's own kernel to ``rank`` channels, ``B`` a 1 x 1 convolution
    to the layer's output channels; so the change of a weight, as a matrix ``(out, in * ky * kx)``,
    has at most rank ``rank``.

    Args:
        rank: inner width of the factors, at least 1. They save memory only where it is well below
            the network's width.
        alpha: scale of the factors' product, in units of ``rank``.
        targets: which layers: ``"all"`` that peft can adapt; another string is a regular expression
            for whole names of layers; a sequence holds names of layers or their last parts, such
            as ``("layers.0", "layers.4")``.
        train_also: names of parameters, or of their first, middle or last parts, that stay
            trainable beside the factors. A network need not have them.
    """

    rank: int = 8
    alpha: float = 8.0
    targets: str | Sequence[str] = "all"
    train_also: Sequence[str] = ("log_lambdas",)


def attach(network: nn.Module, settings: LoRA, generator: torch.Generator) -> None:
    """Put LoRA factors into a network, in place, and freeze everything else.

    The network's class and forward stay as they are, and so does its output until the factors are
    trained. Targeted layers that peft cannot adapt stay frozen, too (see `_can_adapt`).

    Args:
        network: any module; deep copies of it, before or after, are independent.
        settings: rank, scale and targets.
        generator: draws ``A`` (on the CPU); the global generators stay untouched.

    Raises:
        InputError: when no layer, or none of a target's name, can be adapted, or layers are shared.
    """
    layers = _choose(network, settings.targets)
    also = [
        parameter
        for name, parameter in network.named_parameters()
        if any(f".{part}." in f".{name}." for part in settings.train_also)
    ]
    from peft import LoraConfig, inject_adapter_in_model  # slow to import

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft only divides it
        target_modules="|".join(re.escape(name) for name in layers),
    )
    with torch.random.fork_rng(devices=[]):  # peft builds factors on the CPU from its generator
        inject_adapter_in_model(config, network)
    _draw_factors(network, generator)
    for parameter in also:
        parameter.requires_grad_(True)
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    share = 100 * trained / total
    logger.info("LoRA trains %.1f %% of the weights: %d of %d", share, trained, total)


def _choose(network: nn.Module, targets: str | Sequence[str]) -> list[str]:
    """Names of the targeted layers among those that peft can adapt."""
    modules = network.named_modules(remove_duplicate=False)
    able = {name: module for name, module in modules if name and _can_adapt(module)}
    if not able:
        raise InputError(
            "LoRA needs nn.Conv2d or nn.Linear layers inside the network (not grouped or dilated), "
            f"got {type(network).__name__} with none; fit all weights instead"
        )
    chosen: set[str] = set()
    for pattern in _patterns(targets):
        matches = {name for name in able if pattern.fullmatch(name)}
        if not matches:
            raise InputError(
                f"LoRA targets must name layers that can be adapted, {pattern.pattern!r} names "
                f"none; there are {summary(able)}"
            )
        chosen |= matches
    names = [name for name in able if name in chosen]
    if len({able[name] for name in names}) < len(names):
        raise InputError(
            f"LoRA adapts layers with one name each, got shared ones among {summary(names)}; "
            "give every stage its own layers"
        )
    return names


def _patterns(targets: str | Sequence[str]) -> list[re.Pattern[str]]:
    """Regular expressions for whole names, at least one."""
    if not targets:
        raise InputError(f"LoRA targets must not be empty, got {targets!r}; set targets=all")
    if not isinstance(targets, str):
        return [re.compile(rf"(?:.*\.)?{re.escape(suffix)}") for suffix in targets]
    try:
        return [re.compile(".*" if targets == "all" else targets)]
    except re.error as error:
        raise InputError(
            f"LoRA targets must be a regular expression, got {targets!r} ({error}); set targets=all"
        ) from error


def _can_adapt(module: nn.Module) -> bool:
    """Whether peft can adapt the layer without changing what it computes.

    It refuses transposed convolutions (fastMRI's U-Net goes up through them), and gives its factors
    neither groups, dilation nor padding mode. Subclasses of Linear (attention's out_proj) bypass
    their forward.
    """
    if type(module) is nn.Conv2d:
        dilated = any(step != 1 for step in module.dilation)
        return module.groups == 1 and not dilated and module.padding_mode == "zeros"
    return type(module) is nn.Linear


def _draw_factors(network: nn.Module, generator: torch.Generator) -> None:
    """Draw ``A`` as peft does (Kaiming uniform, a = sqrt 5), from a generator; ``B`` stays zero."""
    for name, parameter in network.named_parameters():
        if "lora_A" in name.split("."):
            values: Tensor = torch.empty(parameter.shape)
            nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generator)
            parameter.data.copy_(values)
