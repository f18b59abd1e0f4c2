"""Banks on disk: safetensors with a checksum, written wholly or not at all, and built only once."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Bank(ABC):
    """Good and bad images as a route sees them, which a safetensors file can keep.

    Args:
        description: what the bank is made of, for people; JSON can hold it.
    """

    FORMAT: ClassVar[str]  # checked when a file is read
    description: dict[str, Any] = field(default_factory=dict)

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Return the bank on ``device``."""

    @abstractmethod
    def summary(self) -> list[str]:
        """Return lines for people: entries, and how well the two sides separate."""

    @abstractmethod
    def content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors, and what else `of_content` needs, without the description."""

    @classmethod
    @abstractmethod
    def of_content(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Self:
        """Make the bank again; the description is among the facts."""

    def save(self, path: Path) -> None:
        """Write to a file, wholly or not at all, and the description beside it as JSON."""
        tensors, facts = self.content()
        tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        facts = {**facts, "description": self.description}
        metadata = {name: json.dumps(value) for name, value in facts.items()}
        metadata |= {"format": self.FORMAT, "sha256": _digest(tensors)}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file(tensors, partial, metadata)
        partial.replace(path)
        path.with_suffix(".json").write_text(json.dumps(self.description, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved bank (memory-mapped).

        Raises:
            ValueError: when the file is damaged or of another kind.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if metadata.get("format") != cls.FORMAT or metadata.get("sha256") != _digest(tensors):
            raise ValueError(f"{path} is damaged: its content does not match its checksum")
        names = metadata.keys() - {"format", "sha256"}
        return cls.of_content(tensors, {name: json.loads(metadata[name]) for name in names})


B = TypeVar("B", bound=Bank)


def load_or_build(path: Path, load: Callable[[Path], B], build: Callable[[], B]) -> B:
    """Return the bank of a file; without one, or with a damaged one, build it and keep it.

    A lock lets two processes that want the same bank build it once.
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


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
