"""Loading of existing weights as the start of a network."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.networks.unrolled import Unrolled
from mrisem.networks.unrolled_vit import UnrolledViT, refuse_other_encoder
from mrisem.networks.weight_files import read_weights, summary

logger = logging.getLogger(__name__)

# Names of the weights that come with the package; their sizes are those of scale=demo.
SHIPPED = ("unrolled_mini",)
_ASSETS = Path(__file__).parents[1] / "assets"


def load_start(network: nn.Module, path: Path, name: str) -> None:
    """Load the weights of a file into a network, in place.

    The file may be written by `mrisem train`, or hold a state dict, bare or inside other mappings
    (``state_dict``, ``classy_state_dict``), under any common prefix: the weights are located by
    comparing names. The weights of a U-Net (ours or a ``fastmri.models.Unet(2, 2)``) are loaded
    into every stage of an `Unrolled`, as in Feng et al., arXiv:2511.19641. Only names and shapes
    are compared, not the task of the network: ours adds the output of the U-Net to its input.

    Args:
        network: module to fill.
        path: file written by ``torch.save``, or a name in `SHIPPED`.
        name: name of the model, for messages.

    Raises:
        InputError: when the file cannot be read as weights, does not fit, or holds NaN or infinity.
    """
    path = _ASSETS / f"{path}.ckpt" if str(path) in SHIPPED else path.expanduser()
    weights = read_weights(path)
    modules, prefix = _match(network, weights, path, name)
    expected = modules[0].state_dict()
    # the file may lack the first parts that all expected names share, such as "unet."
    n_shared = len(_shared_prefix(expected))
    in_file = {prefix + key[n_shared:]: key for key in expected}
    loaded = {key: weights[stored] for stored, key in in_file.items() if stored in weights}
    unexpected = [k for k in weights if k.startswith(prefix) and k not in in_file]
    if isinstance(network, UnrolledViT):
        refuse_other_encoder(network, loaded)  # before the sizes, which also depend on the encoder
    _check_fit(expected, loaded, unexpected, path, name)
    if unused := len(weights) - len(loaded):
        logger.info("%s: %d tensors that are not weights of model=%s", path, unused, name)
    for module in modules:
        module.load_state_dict(loaded)


def _match(
    network: nn.Module, weights: Mapping[str, Tensor], path: Path, name: str
) -> tuple[Sequence[nn.Module], str]:
    """Find the modules that a file's weights fit by their names, and the names' prefix there."""
    targets: list[Sequence[nn.Module]] = [[network]]
    if isinstance(network, Unrolled):
        targets.append([*network.unets])
    # the target with most names in the file; at a tie the first one, the whole network
    candidates = [_prefixes(modules[0].state_dict(), weights) for modules in targets]
    (prefixes, n_names), modules = max(
        zip(candidates, targets, strict=True), key=lambda pair: pair[0][1]
    )
    expected = modules[0].state_dict()
    if n_names == 0:
        raise InputError(
            f"{path} must hold weights of model={name}, such as {next(iter(expected))}, got "
            f"{summary(weights)}; give a checkpoint of that model"
        )
    if len(prefixes) > 1:
        raise InputError(
            f"{path} must hold one set of weights of model={name}, got {len(prefixes)}, under "
            f"{summary(prefixes)}; give a checkpoint of that model, or save one set alone"
        )
    return modules, prefixes[0]


def _prefixes(expected: Collection[str], weights: Iterable[str]) -> tuple[list[str], int]:
    """Find the prefixes under which a file holds most of the expected names; count these names.

    The file may lack the first parts that all expected names share.
    """
    n_shared = len(_shared_prefix(expected))
    endings = {key[n_shared:] for key in expected}
    counts: Counter[str] = Counter()
    for key in weights:
        # every dotted ending of a name may be the expected name, the rest its prefix
        parts = key.split(".")
        tails = (".".join(parts[index:]) for index in range(len(parts)))
        counts.update(key.removesuffix(tail) for tail in tails if tail in endings)
    most = max(counts.values(), default=0)
    return [prefix for prefix, count in counts.items() if count == most], most


def _shared_prefix(names: Iterable[str]) -> str:
    """Join the first dotted parts that all names share, without the last part of any name."""
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = takewhile(lambda column: len(set(column)) == 1, columns)
    return "".join(f"{column[0]}." for column in shared)


def _check_fit(
    expected: Mapping[str, Tensor],
    loaded: Mapping[str, Tensor],
    unexpected: Iterable[str],
    path: Path,
    name: str,
) -> None:
    """Raise InputError for weights that do not fit: the first fault and the number of others."""
    faults = []
    for key, weight in expected.items():
        value = loaded.get(key)
        if value is None:
            faults.append(f"{key} is missing")
        elif value.shape != weight.shape:
            faults.append(f"{key} is {tuple(value.shape)}, expected {tuple(weight.shape)}")
        elif value.is_floating_point() != weight.is_floating_point():
            faults.append(f"{key} is {value.dtype}, expected {weight.dtype}")
    faults += [f"{key} is unexpected" for key in unexpected]
    if faults:
        others = f", and {len(faults) - 1} others" if len(faults) > 1 else ""
        fix = f"set the sizes that it was trained with (scale.{name}.*), or give another checkpoint"
        first = next(iter(expected))
        # fastMRI's published U-Net has one input channel: say so instead of a mismatch of sizes
        if (
            first in loaded
            and expected[first].shape[1:2] == (2,)
            and loaded[first].shape[1:2] == (1,)
        ):
            fix = (
                "it takes magnitude images in 1 channel, as fastMRI's published U-Net does; this "
                "network takes real and imaginary part in 2: train one with mrisem train"
            )
        raise InputError(f"{path} does not fit model={name} ({faults[0]}{others}); {fix}")
    for key, value in loaded.items():
        if not bool(torch.isfinite(value).all()):
            raise InputError(
                f"weights must be finite, {key} holds NaN or infinity in {path}; give a checkpoint "
                "from before the training failed"
            )
