"""Low-rank adaptation of convolutional networks through peft.

Feng et al., arXiv:2511.19641, fit a pretrained network to a scan in this way: its weights stay
frozen, and only LoRA factors (Hu et al., arXiv:2106.09685) and the lambda_k of an unrolled network
are trained.
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
    """Settings of ``W = W_0 + alpha / rank * B A`` with frozen ``W_0``; at the start ``B = 0``.

    ``A`` is a convolution with the layer's own kernel size to ``rank`` channels, ``B`` a 1 x 1
    convolution to the layer's output channels. The change of a weight, as a matrix
    ``(out, in * ky * kx)``, therefore has at most rank ``rank``.

    Args:
        rank: inner width of the factors, at least 1. The factors save memory only where the rank is
            well below the network's width.
        alpha: scale of the product of the factors, in units of ``rank``.
        targets: layers that get factors. ``"all"``: all that peft can adapt; another string: a
            regular expression for whole layer names; a sequence: layer names or their last parts,
            such as ``("layers.0", "layers.4")``.
        train_also: parameter names, or dotted parts of them, that stay trainable beside the
            factors. A network need not have them.
    """

    rank: int = 8
    alpha: float = 8.0
    targets: str | Sequence[str] = "all"
    train_also: Sequence[str] = ("log_lambdas",)


def attach(
    network: nn.Module, settings: LoRA, generator: torch.Generator, dropout: float = 0.0
) -> None:
    """Add LoRA factors to a network, in place, and freeze everything else.

    The output of the network does not change until the factors are trained. Layers that peft cannot
    adapt stay frozen without factors (see `_can_adapt`).

    Args:
        network: any module; deep copies made before or after are independent of it.
        settings: rank, scale and targets.
        generator: CPU generator that draws ``A``; the global generators are not touched.
        dropout: share of the factors' inputs that training sets to zero.

    Raises:
        InputError: when no layer can be adapted, a target names none that can, or layers share
            their weights.
    """
    layers = _choose(network, settings.targets)
    trained_too = [
        parameter
        for name, parameter in network.named_parameters()
        if any(f".{part}." in f".{name}." for part in settings.train_also)
    ]
    from peft import LoraConfig, inject_adapter_in_model  # slow to import

    # peft takes one regular expression for the layers' names
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft only divides it
        lora_dropout=dropout,
        target_modules="|".join(re.escape(name) for name in layers),
    )
    with torch.random.fork_rng(devices=[]):  # peft builds factors on the CPU from its generator
        inject_adapter_in_model(config, network)
    _draw_factors(network, generator)
    for parameter in trained_too:
        parameter.requires_grad_(True)
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    share = 100 * trained / total
    logger.info("LoRA trains %.1f %% of the weights: %d of %d", share, trained, total)


def _choose(network: nn.Module, targets: str | Sequence[str]) -> list[str]:
    """List the names of the targeted layers that peft can adapt."""
    modules = network.named_modules(remove_duplicate=False)
    adaptable = {name: module for name, module in modules if name and _can_adapt(module)}
    if not adaptable:
        raise InputError(
            "LoRA needs nn.Conv2d or nn.Linear layers inside the network (not grouped or dilated), "
            f"got none in {type(network).__name__}; fit all weights instead"
        )
    chosen: set[str] = set()
    for pattern in _patterns(targets):
        matches = {name for name in adaptable if pattern.fullmatch(name)}
        if not matches:
            raise InputError(
                f"LoRA targets must name layers that can be adapted, {pattern.pattern!r} names "
                f"none; name some of {summary(adaptable)}"
            )
        chosen |= matches
    names = [name for name in adaptable if name in chosen]
    if len({adaptable[name] for name in names}) < len(names):
        raise InputError(
            f"LoRA needs layers with one name each, got shared layers among {summary(names)}; "
            "give every stage its own layers"
        )
    return names


def _patterns(targets: str | Sequence[str]) -> list[re.Pattern[str]]:
    """Compile the targets to regular expressions for whole layer names, at least one."""
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
    """Tell whether peft can adapt the layer without changing what it computes.

    peft refuses transposed convolutions, by which fastMRI's U-Net upsamples. Its factors have no
    groups, dilation or padding mode. Subclasses of Linear, such as the output projection of
    attention, are used without their forward, which factors would need.
    """
    if type(module) is nn.Conv2d:
        dilated = any(step != 1 for step in module.dilation)
        return module.groups == 1 and not dilated and module.padding_mode == "zeros"
    return type(module) is nn.Linear


def _draw_factors(network: nn.Module, generator: torch.Generator) -> None:
    """Draw ``A`` from a generator, with peft's distribution (Kaiming uniform, a = sqrt 5)."""
    for name, parameter in network.named_parameters():
        if "lora_A" in name.split("."):
            values: Tensor = torch.empty(parameter.shape)
            nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generator)
            parameter.data.copy_(values)
