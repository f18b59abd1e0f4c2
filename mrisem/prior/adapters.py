"""Low-rank adapters of a Janus model: read from a folder in peft's format, added to its weights.

`mrisem adapt` writes such a folder: ``adapter_config.json`` and ``adapter_model.safetensors`` are
peft's, ``base.json`` names the model that was adapted, and hashes its parts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.files import reading
from mrisem.prior.checkpoints import read_json
from mrisem.prior.weights import read_tensors, weight_files

# Part, as users call it -> its name in transformers' Janus.
PARTS = {"vision": "vision_model", "aligner": "aligner", "language": "language_model"}
BASE, CONFIG, WEIGHTS = "base.json", "adapter_config.json", "adapter_model.safetensors"
_FACTOR = re.compile(r"base_model\.model\.model\.(\w+)\.(.+)\.lora_([AB])\.weight")


def part_fingerprints(checkpoint: Path, parts: Iterable[str]) -> dict[str, str]:
    """Hash names, dtypes, shapes and values of all weights that a checkpoint has of each part.

    The files are hashed, not what is loaded: neither dtype nor number of levels matters.
    """
    return {part: _fingerprint(checkpoint, rf"(?:model\.)?({PARTS[part]}\..*)") for part in parts}


def _fingerprint(checkpoint: Path, pattern: str) -> str:
    digests = []
    for path in weight_files(checkpoint):
        with (
            reading(path, "whole safetensors weights", "fetch it again"),
            safe_open(path, framework="pt") as file,
        ):
            for name in file.keys():  # noqa: SIM118
                if found := re.fullmatch(pattern, name):
                    weight = file.get_tensor(name)
                    digest = hashlib.sha256(f"{found[1]} {weight.dtype} {weight.shape}".encode())
                    digest.update(weight.contiguous().view(-1).view(torch.uint8).numpy().data)
                    digests.append(f"{found[1]} {digest.hexdigest()}")
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()[:24]


@torch.no_grad()
def merge_adapter(adapter: str, checkpoint: Path, modules: Mapping[str, nn.Module]) -> None:
    """Add an adapter to weights, ``W = W_0 + alpha / rank B A``, in place.

    The sum is rounded to the dtype of the weights. So the weights' own hash, which names cached
    banks, tells adapters apart. Layers that a module lacks, being cut at its deepest level, are
    left out.

    Args:
        adapter: folder.
        checkpoint: folder of the model that the modules are of.
        modules: name in `PARTS` -> that part of the model.

    Raises:
        InputError: when the folder is no adapter, belongs to another model, or changes nothing in
            the modules.
    """
    folder = Path(adapter).expanduser()
    base, config = _read_facts(folder)
    for part, fingerprint in part_fingerprints(checkpoint, modules).items():
        if base["fingerprints"].get(part) != fingerprint:
            raise InputError(
                f"encoder.adapter must belong to the model, {folder} adapts {base['base']}, whose "
                f"{part} part has other weights than {checkpoint}; set encoder.path to the model "
                "that was adapted"
            )
    layers = _layers(modules)
    n_merged = 0
    for name, (a, b) in _read_factors(folder).items():
        if name in layers:
            weight = layers[name].weight
            _check_shapes(name, weight, a, b, folder)
            weight.copy_(weight.float() + config["lora_alpha"] / config["r"] * (b @ a))
            n_merged += 1
    if not n_merged:
        raise InputError(
            f"encoder.adapter must change what the prior looks through ({', '.join(modules)}), "
            f"{folder} changes only {', '.join(base['parts'])}; choose another prior, or adapt "
            "with other parts"
        )


def _layers(modules: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Linear layers by their names in the whole model."""
    return {
        f"{PARTS[part]}.{name}": layer
        for part, module in modules.items()
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    }


def _read_facts(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what the adapter was made from, and peft's settings."""
    missing = [name for name in (BASE, CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"encoder.adapter must be a folder that `mrisem adapt` has written, got no {missing[0]}"
            f" in {folder}; name the folder `adapter` of its run"
        )
    base, config = read_json(folder / BASE), read_json(folder / CONFIG)
    with reading(folder / BASE, "an adapter's facts", "adapt again"):
        facts = {name: base[name] for name in ("base", "fingerprints", "parts")}
    with reading(folder / CONFIG, "an adapter's settings", "adapt again"):
        settings = {name: float(config[name]) for name in ("r", "lora_alpha")}
    return facts, settings


def _read_factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Read layer -> A ``(rank, in)``, B ``(out, rank)`` float32."""
    factors: dict[str, dict[str, Tensor]] = {}
    for name, value in read_tensors(folder / WEIGHTS, "").items():
        if found := _FACTOR.fullmatch(name):
            factors.setdefault(f"{found[1]}.{found[2]}", {})[found[3]] = value.float()
    with reading(folder / WEIGHTS, "factors A and B of layers", "adapt again"):
        return {name: (sides["A"], sides["B"]) for name, sides in factors.items()}


def _check_shapes(name: str, weight: Tensor, a: Tensor, b: Tensor, folder: Path) -> None:
    if a.ndim != 2 or b.ndim != 2 or (len(b), a.shape[1]) != weight.shape or b.shape[1] != len(a):
        raise InputError(
            f"an adapter's factors must fit {name} {tuple(weight.shape)}, got {tuple(b.shape)} and "
            f"{tuple(a.shape)} in {folder}; adapt again"
        )
