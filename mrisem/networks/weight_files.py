"""Reading tensors from files of ``torch.save`` without running any code that a file names."""

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
    """Read the named tensors of a file.

    The file is read by torch's restricted unpickler (``weights_only=True``). Objects of other
    classes, for example a configuration beside the weights, become empty objects; the code of those
    classes never runs.

    Args:
        path: file written by ``torch.save``.

    Returns:
        name -> tensor; the names of nested mappings are joined by dots.

    Raises:
        InputError: when the file is missing, damaged or of another kind, or holds no named tensors.
    """
    rule = "model.checkpoint must be a file of weights"
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{rule}, {path} {state}; give a file of mrisem train or a state dict")
    classes = _other_classes(path)
    # a file that holds other classes is read all the same; they are named only when that fails
    classes_held = f"it holds objects of {summary(classes)}" if classes else ""
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(_Unread, name) for name in classes]),
        ):
            warnings.simplefilter("ignore")  # of TorchScript and old pickles: an error follows
            content = torch.load(path, map_location="cpu", weights_only=True)
        weights = dict(_tensors(content))
    except PermissionError as error:
        raise InputError(f"{rule}, {path} may not be read; change its permissions") from error
    except Exception as error:  # bytes that are not a pickle raise errors of many classes
        reason = f"{classes_held or 'it is damaged, or holds more than weights'}; copy it again"
        raise InputError(f"{rule}, {path} cannot be read: {reason}, or {_SAVE}") from error
    if not weights:
        reason = classes_held or "it holds no tensor under a name"
        raise InputError(f"{rule}, {path} is none: {reason}; {_SAVE}")
    return weights


def summary(names: Iterable[str]) -> str:
    """Name the first of some names and count the others.

    >>> summary(["a", "b", "c"])
    "'a' and 2 others"
    """
    first, *others = names
    return f"{first!r} and {len(others)} others" if others else repr(first)


class _Unread:
    """Stand-in for any class whose objects are not weights; it keeps no data."""

    def __new__(cls, *_: object) -> _Unread:
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Discard the state that the file gives to an object."""


def _other_classes(path: Path) -> list[str]:
    """List the classes and functions in a file that torch's restricted unpickler refuses."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an old format, or not a file of torch.save: `read_weights` will tell
        return []
    return sorted(names, key=lambda name: ("builtin" in name, name))


def _tensors(content: Any, prefix: str = "") -> Iterable[tuple[str, Tensor]]:
    """Yield every dense tensor in nested mappings with its dotted name."""
    if isinstance(content, Tensor):
        if prefix and content.layout == torch.strided and not content.is_meta:
            yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str):
                yield from _tensors(value, f"{prefix}{key}.")
