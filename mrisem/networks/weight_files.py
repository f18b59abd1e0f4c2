"""Tensors of a file of ``torch.save``, read without running any code that the file names."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mrisem.errors import InputError

_SAVE = "save the weights alone: torch.save(network.state_dict(), FILE)"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name.

    Only torch's restricted unpickler reads (``weights_only=True``). Other classes in the file, a
    configuration beside the weights for example, become empty objects, so their code never runs.

    Args:
        path: file of ``torch.save``.

    Returns:
        Tensors by name; names in nested mappings are joined by dots.

    Raises:
        InputError: when the file is missing, damaged or of another kind, or holds no named tensors.
    """
    rule = "model.checkpoint must be a file of weights"
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{rule}, {path} {kind}; give a file of mrisem train or a state dict")
    classes = _other_classes(path)
    holds = f"it holds objects of {summary(classes)}" if classes else ""
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(_Unread, name) for name in classes]),
        ):
            warnings.simplefilter("ignore")  # about TorchScript and old pickles: an error follows
            content = torch.load(path, map_location="cpu", weights_only=True)
        weights = dict(_tensors(content))
    except PermissionError as error:
        raise InputError(f"{rule}, {path} may not be read; change its permissions") from error
    except Exception as error:  # bytes that are no pickle fail in every way
        reason = f"{holds or 'it is damaged, or holds more than weights'}; copy it again"
        raise InputError(f"{rule}, {path} cannot be read: {reason}, or {_SAVE}") from error
    if not weights:
        reason = holds or "it holds no tensor under a name"
        raise InputError(f"{rule}, {path} is none: {reason}; {_SAVE}")
    return weights


def summary(names: Iterable[str]) -> str:
    """Name the first and count the others.

    >>> summary(["a", "b", "c"])
    "'a' and 2 others"
    """
    first, *others = names
    return f"{first!r} and {len(others)} others" if others else repr(first)


class _Unread:
    """Takes the place of any class whose objects are no weights; it keeps nothing."""

    def __new__(cls, *_: object) -> _Unread:
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Take what the file gives to an object."""


def _other_classes(path: Path) -> list[str]:
    """Names of the classes and functions in a file that torch does not read by itself."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an old format, or no file of torch.save: reading it decides
        return []
    return sorted(names, key=lambda name: ("builtin" in name, name))


def _tensors(content: Any, prefix: str = "") -> Iterable[tuple[str, Tensor]]:
    """Every dense tensor in nested mappings, with its dotted name."""
    if isinstance(content, Tensor):
        if prefix and content.layout == torch.strided and not content.is_meta:
            yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str):
                yield from _tensors(value, f"{prefix}{key}.")
