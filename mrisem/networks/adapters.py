"""Low-rank adaptation of convolutional networks through peft.

Method: Feng et al., arXiv:2511.19641, its per-scan fitting: a pretrained network stays frozen and
only LoRA factors (Hu et al., arXiv:2106.09685), and the lambda_k of an unrolled network, are
trained.

What peft adapts here are plain `nn.Conv2d` and `nn.Linear` layers. What it cannot adapt stays
frozen and is named in the report: transposed convolutions (fastMRI's U-Net goes up through them;
peft refuses them), grouped convolutions (peft cannot merge them), dilated ones and those with
non-zero padding modes (peft gives its factors neither dilation nor padding mode).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mrisem.errors import InputError


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

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"LoRA rank must be at least 1, got {self.rank}; set rank=8")
        if not self.alpha > 0:
            raise InputError(f"LoRA alpha must be positive, got {self.alpha}; set alpha=rank")
        if isinstance(self.train_also, str):
            raise InputError(
                f"LoRA train_also must be a list of names, got {self.train_also!r}; put it in [ ]"
            )


@dataclass(frozen=True)
class AdapterReport:
    """What `attach` did.

    Args:
        trainable: number of trainable values, factors and ``also`` together.
        total: number of values of all parameters, factors included.
        modules: names of the adapted layers.
        also: names of the parameters that stay trainable beside the factors.
        left_out: names of the targeted layers that peft cannot adapt: frozen.
    """

    trainable: int
    total: int
    modules: tuple[str, ...]
    also: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def share(self) -> float:
        """Trainable over all values, between 0 and 1."""
        return self.trainable / self.total


def attach(network: nn.Module, settings: LoRA, generator: torch.Generator) -> AdapterReport:
    """Put LoRA factors into a network, in place, and freeze everything else.

    The network's class and forward stay as they are, and so does its output until the factors are
    trained. Names of adapted weights gain ``base_layer``; `merge` takes it away again.

    Args:
        network: any module; deep copies of it, before or after, are independent.
        settings: rank, scale and targets.
        generator: draws ``A`` (on the CPU); the global generators stay untouched.

    Raises:
        InputError: when no layer is targeted, a target names no layer that can be adapted, or the
            network already carries factors.
    """
    if carries_factors(network):
        raise InputError("a network takes LoRA factors once, this one has them; merge() it first")
    modules, left_out = _choose(network, settings.targets)
    also = {n: p for n, p in network.named_parameters() if _names_any(settings.train_also, n)}
    from peft import LoraConfig, inject_adapter_in_model  # slow to import

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft only divides it
        target_modules="|".join(re.escape(name) for name in modules),
    )
    with torch.random.fork_rng(devices=[]):  # peft builds factors on the CPU from its generator
        inject_adapter_in_model(config, network)
    _draw_factors(network, generator)
    for parameter in also.values():
        parameter.requires_grad_(True)
    counts = [(p.numel(), p.requires_grad) for p in network.parameters()]
    trainable = sum(count for count, trained in counts if trained)
    total = sum(count for count, _ in counts)
    return AdapterReport(trainable, total, modules, tuple(also), left_out)


def carries_factors(network: nn.Module) -> bool:
    """Whether `attach` has put factors into the network that are not merged yet."""
    return any("lora_A" in name.split(".") for name, _ in network.named_parameters())


@torch.no_grad()
def merge(network: nn.Module) -> nn.Module:
    """Fold the factors into the weights, in place: the plain network again, all of it trainable.

    Its ``state_dict`` has the names it had before `attach`.

    Args:
        network: as `attach` left it, or a deep copy.

    Returns:
        The same network.

    Raises:
        InputError: when it carries no factors.
    """
    if not carries_factors(network):
        raise InputError("merge needs a network with LoRA factors, got none; call attach() first")
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(n, m) for n, m in network.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, layer in adapted:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, layer.get_base_layer())
    del network.peft_config
    return network.requires_grad_(True)


def _choose(
    network: nn.Module, targets: str | Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of targeted layers that peft can adapt, and of those that it cannot."""
    layers = {
        name: module
        for name, module in network.named_modules(remove_duplicate=False)
        if name and isinstance(module, (_ConvNd, nn.Linear))
    }
    able = [name for name, module in layers.items() if _can_adapt(module)]
    if not able:
        raise InputError(
            "LoRA needs nn.Conv2d or nn.Linear layers inside the network (not grouped or dilated), "
            f"got {type(network).__name__} with none; fit all weights instead"
        )
    wanted = [re.compile(".*")] if targets == "all" else _patterns(targets)
    for pattern in wanted:
        if not any(pattern.fullmatch(name) for name in able):
            raise InputError(
                f"LoRA targets must name layers that can be adapted, {pattern.pattern!r} names "
                f"none; there are {_shorten(able)}"
            )
    chosen = [name for name in layers if any(pattern.fullmatch(name) for pattern in wanted)]
    modules = tuple(name for name in chosen if name in set(able))
    if len({id(layers[name]) for name in modules}) < len(modules):
        raise InputError(
            f"LoRA adapts layers with one name each, got shared ones among {_shorten(modules)}; "
            "give every stage its own layers"
        )
    return modules, tuple(name for name in chosen if name not in set(able))


def _patterns(targets: str | Sequence[str]) -> list[re.Pattern[str]]:
    """Regular expressions for whole names, at least one."""
    if not targets:
        raise InputError(f"LoRA targets must not be empty, got {targets!r}; set targets=all")
    try:
        if isinstance(targets, str):
            return [re.compile(targets)]
        return [re.compile(rf"(?:.*\.)?{re.escape(suffix)}") for suffix in targets]
    except re.error as error:
        raise InputError(
            f"LoRA targets must be a regular expression, got {targets!r} ({error}); set targets=all"
        ) from error


def _can_adapt(module: nn.Module) -> bool:
    """Whether peft can adapt, and merge, the layer without changing what it computes."""
    if type(module) is nn.Conv2d:
        dilated = any(step != 1 for step in module.dilation)
        return module.groups == 1 and not dilated and module.padding_mode == "zeros"
    return type(module) is nn.Linear  # subclasses (attention's out_proj) bypass their forward


def _names_any(wanted: Sequence[str], name: str) -> bool:
    """Whether one of the wanted dotted names is a whole run of parts of ``name``."""
    return any(f".{part}." in f".{name}." for part in wanted)


def _draw_factors(network: nn.Module, generator: torch.Generator) -> None:
    """Draw ``A`` as peft does (Kaiming uniform, a = sqrt 5), from a generator; ``B`` stays zero."""
    for name, parameter in network.named_parameters():
        if "lora_A" in name.split("."):
            values: Tensor = torch.empty(parameter.shape)
            nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generator)
            parameter.data.copy_(values)


def _shorten(names: Sequence[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
