"""Weights that people have, as the start of a network."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.networks.unrolled import Unrolled
from mrisem.networks.weight_files import read_weights, summary

logger = logging.getLogger(__name__)

# Weights that come with the package, by name; their sizes are those of scale=demo.
SHIPPED = ("unrolled_mini",)
_ASSETS = Path(__file__).parents[1] / "assets"


def load_start(network: nn.Module, path: Path, name: str) -> None:
    """Load the weights of a file into a network, in place.

    The file may be one of `mrisem train`, a bare state dict, or one inside other mappings
    (``state_dict``, ``classy_state_dict``), under any common prefix: where the weights are is found
    by comparing names. A U-Net, ours or a ``fastmri.models.Unet(2, 2)``, given to an `Unrolled`
    enters every stage, as the method starts (Feng et al., arXiv:2511.19641). Names and shapes are
    compared, not what a network was trained for: ours adds the U-Net's output to its input.

    Args:
        network: module to be filled.
        path: file of ``torch.save``, or a name of `SHIPPED`.
        name: name of the model, for messages.

    Raises:
        InputError: when the file cannot be read as weights, does not fit, or holds NaN or infinity.
    """
    path = _ASSETS / f"{path}.ckpt" if str(path) in SHIPPED else path.expanduser()
    weights = read_weights(path)
    match = _best_match(network, weights, path, name)
    _check_fit(match, path, name)
    if unused := len(weights) - len(match.values):
        logger.info("%s: tensors that are no weights of model=%s: %d", path, name, unused)
    if match.every_stage and isinstance(network, Unrolled):
        network.load_unet({f"unet.{key}": value for key, value in match.values.items()})
    else:
        network.load_state_dict(match.values)


@dataclass(frozen=True)
class _Match:
    """Weights of a file beside those that a network expects.

    Args:
        expected: name of each weight in the network -> its tensor.
        values: the same names, as far as the file has them -> the file's tensor.
        unexpected: other names in the file under the same prefix.
        every_stage: whether ``expected`` is the U-Net of each stage of an `Unrolled`.
    """

    expected: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    unexpected: tuple[str, ...]
    every_stage: bool


def _best_match(network: nn.Module, weights: Mapping[str, Tensor], path: Path, name: str) -> _Match:
    """Find a network's weights in a file by their names, whatever stands before them."""
    targets = [network, *([network.unets[0]] if isinstance(network, Unrolled) else [])]
    states = [target.state_dict() for target in targets]
    matches = [_prefixes(state, weights) for state in states]
    # the target with most names in the file; the whole network where a stage has as many
    best = max(range(len(targets)), key=lambda index: matches[index][1])
    expected, (prefixes, n_matched) = states[best], matches[best]
    if n_matched == 0:
        raise InputError(
            f"{path} must hold weights of model={name}, such as {next(iter(expected))}, got "
            f"{summary(weights)}; give a checkpoint of that model"
        )
    if len(prefixes) > 1:
        raise InputError(
            f"{path} must hold one set of weights of model={name}, got {len(prefixes)}, under "
            f"{summary(prefixes)}; give a checkpoint of that model, or save one set alone"
        )
    n_shared = len(_shared_prefix(expected))
    in_file = {key: prefixes[0] + key[n_shared:] for key in expected}
    used = set(in_file.values())
    return _Match(
        expected,
        {key: weights[given] for key, given in in_file.items() if given in weights},
        tuple(key for key in weights if key.startswith(prefixes[0]) and key not in used),
        every_stage=best == 1,
    )


def _prefixes(expected: Collection[str], weights: Iterable[str]) -> tuple[list[str], int]:
    """Prefixes under which a file holds most of the expected names, and how many those are.

    The file need not have the first parts that all expected names share.
    """
    n_shared = len(_shared_prefix(expected))
    ends = {key[n_shared:] for key in expected}
    counts: Counter[str] = Counter()
    for key in weights:
        parts = key.split(".")
        tails = (".".join(parts[index:]) for index in range(len(parts)))
        counts.update(key.removesuffix(tail) for tail in tails if tail in ends)
    most = max(counts.values(), default=0)
    return [prefix for prefix, count in counts.items() if count == most], most


def _shared_prefix(names: Iterable[str]) -> str:
    """Leading parts that all names share, with their dot, short of a whole name."""
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = takewhile(lambda column: len(set(column)) == 1, columns)
    return "".join(f"{column[0]}." for column in shared)


def _check_fit(match: _Match, path: Path, name: str) -> None:
    """Refuse weights that do not fit in one line: the first mismatch and the number of others."""
    faults = []
    for key, wanted in match.expected.items():
        given = match.values.get(key)
        if given is None:
            faults.append(f"{key} is missing")
        elif given.shape != wanted.shape:
            faults.append(f"{key} is {tuple(given.shape)}, expected {tuple(wanted.shape)}")
        elif given.is_floating_point() != wanted.is_floating_point():
            faults.append(f"{key} is {given.dtype}, expected {wanted.dtype}")
    faults += [f"{key} is unexpected" for key in match.unexpected]
    if faults:
        others = f", and {len(faults) - 1} others" if len(faults) > 1 else ""
        raise InputError(
            f"{path} does not fit model={name} ({faults[0]}{others}); {_fix(match, name)}"
        )
    for key, value in match.values.items():
        if not bool(torch.isfinite(value).all()):
            raise InputError(
                f"weights must be finite, {key} holds NaN or infinity in {path}; give a checkpoint "
                "from before the training failed"
            )


def _fix(match: _Match, name: str) -> str:
    """What to do about weights of another size."""
    first = next(iter(match.expected))
    wanted = match.expected[first].shape
    given = match.values[first].shape if first in match.values else torch.Size()
    if len(wanted) == len(given) == 4 and (given[1], wanted[1]) == (1, 2):
        return (
            "it takes magnitude images in 1 channel (fastMRI's published U-Net does), this network "
            "real and imaginary part in 2: train one with mrisem train"
        )
    return f"set the sizes that it was trained with (scale.{name}.*), or give another checkpoint"
