"""Bank files: safetensors with a checksum, written wholly or not at all, and built only once."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class Bank(Protocol):
    """Anything that can be kept in a bank file."""

    def save(self, path: Path) -> None:
        """Write to a file, wholly or not at all."""
        ...


B = TypeVar("B", bound=Bank)


def write_bank_file(
    path: Path,
    tensors: dict[str, Tensor],
    kind: str,
    facts: dict[str, Any],
    description: dict[str, Any],
) -> None:
    """Write tensors, facts and checksum to one file, and the description beside it as JSON.

    Args:
        path: ends in ``.safetensors``.
        tensors: what the bank consists of.
        kind: the format's name, checked when the file is read.
        facts: numbers that belong to the tensors, under any names but ``format``, ``sha256`` and
            ``description``.
        description: what the bank is made of, for people.
    """
    metadata = {
        "format": kind,
        "description": json.dumps(description),
        "sha256": _digest(tensors),
        **{name: json.dumps(value) for name, value in facts.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(tensors, partial, metadata)
    partial.replace(path)
    path.with_suffix(".json").write_text(json.dumps(description, indent=1) + "\n")


def read_bank_file(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a bank file (memory-mapped) and check it.

    Args:
        path: written by `write_bank_file`.
        kind: the format's name.

    Returns:
        tensors; and the facts, with ``description`` among them.

    Raises:
        ValueError: when the file is damaged or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if metadata.get("format") != kind or metadata.get("sha256") != _digest(tensors):
        raise ValueError(f"{path} is damaged: its content does not match its checksum")
    names = metadata.keys() - {"format", "sha256"}
    return tensors, {name: json.loads(metadata[name]) for name in names}


def load_or_build(path: Path, load: Callable[[Path], B], build: Callable[[], B]) -> B:
    """Return the bank of a file; without one, or with a damaged one, build it and keep it.

    A lock lets two processes that want the same bank build it once.

    Args:
        path: of the file, named by the bank's content key.
        load: reads it; raises ValueError when it is damaged.
        build: makes the bank.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.exists():
            try:
                return load(path)
            except ValueError as error:
                warnings.warn(f"{error}; it is built anew", stacklevel=2)
        bank = build()
        bank.save(path)
    return bank


def content_key(facts: dict[str, Any]) -> str:
    """Return the content key: equal facts have equal keys."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def title(acquisition: str, images: dict[str, Any]) -> str:
    """Return the first lines that describe a bank: what it guides, what it is made of.

    Args:
        acquisition: name of the acquisition that it guides.
        images: what `AuxiliaryImages.describe` says.
    """
    return (
        f"bank for {acquisition} ({images['contrast']} contrast)\n"
        f"  made of     {images['n_slices']} slices of {len(images['subjects'])} subjects, "
        f"{', '.join(images['acquisitions'])}; negatives {images['negatives']} at R in "
        f"{images['accelerations']}"
    )


def file_line(path: Path) -> str:
    """Return the line that names a bank's file and its size."""
    return f"  file        {path} ({path.stat().st_size / 1e6:.1f} MB)"


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
