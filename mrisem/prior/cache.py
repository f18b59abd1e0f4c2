"""Banks on disk: safetensors with a checksum, written wholly or not at all, and built only once."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mrisem.errors import InputError
from mrisem.files import reading, remove_partial, whole, write_text

SAVE_EVERY = 60.0  # seconds between two states of an unfinished build
Tensors = dict[str, Tensor]


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
        with whole(path) as partial:
            save_file(tensors, partial, metadata)
        write_text(path.with_suffix(".json"), json.dumps(self.description, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved bank (memory-mapped).

        Raises:
            InputError: when the file is damaged, of another kind, or holds NaN or infinity.
        """
        with reading(path, "a whole bank", "it is damaged"):
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            if metadata.get("format") != cls.FORMAT or metadata.get("sha256") != _digest(tensors):
                raise ValueError("its content does not match its checksum")
            names = metadata.keys() - {"format", "sha256"}
            bank = cls.of_content(tensors, {name: json.loads(metadata[name]) for name in names})
            bank.check_finite()
        return bank

    def check_finite(self) -> None:
        """Raise InputError where a tensor holds NaN or infinity."""
        for name, tensor in self.content()[0].items():
            if not bool(torch.isfinite(tensor).all()):
                raise InputError(
                    f"a bank must be finite, got NaN or infinity in {name}; look for bad images in "
                    "auxiliary.root, or take encoder.dtype=float32"
                )


@dataclass
class Unfinished:
    """State of a build beside its bank, from which a later build of the same bank continues.

    The file has the bank's content key, so that a build of anything else never reads it.

    Args:
        path: file of the state; None: not kept.
    """

    path: Path | None = None

    @classmethod
    def beside(cls, bank: Path) -> Unfinished:
        """Return the state of the bank that is to have this file."""
        return cls(bank.with_suffix(".unfinished"))

    def read(self) -> Tensors:
        """Return the state that an interrupted build left; empty: there is none, or a damaged."""
        if self.path is None or not self.path.exists():
            return {}
        try:
            with reading(self.path, "a whole state of a bank", "the bank is built anew"):
                return {name: tensor.clone() for name, tensor in load_file(self.path).items()}
        except InputError as error:
            warnings.warn(str(error), stacklevel=2)
            return {}

    @contextmanager
    def kept(self, state: Callable[[], Tensors]) -> Iterator[Callable[[], None]]:
        """Keep ``state()`` once a minute and when the build is interrupted by an exception.

        Yields:
            a function to call after each step.
        """
        last = time.monotonic()

        def step() -> None:
            nonlocal last
            if time.monotonic() - last >= SAVE_EVERY:
                self.save(state())
                last = time.monotonic()

        try:
            yield step
        except BaseException:  # an interruption too
            self.save(state())
            raise

    def save(self, tensors: Tensors) -> None:
        """Write a state, whole or not at all."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _sole_writer(self.path.parent), whole(self.path) as partial:
                save_file({name: t.contiguous() for name, t in tensors.items()}, partial)

    def remove(self) -> None:
        """Remove the state: the bank is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


B = TypeVar("B", bound=Bank)


def load_or_build(path: Path, load: Callable[[Path], B], build: Callable[[], B]) -> B:
    """Return the bank of a file; without one, or with a damaged one, build it and keep it.

    A lock lets two processes that want the same bank build it once. `Unfinished.beside` the bank is
    removed when the bank is complete.

    Raises:
        InputError: when what was built is not finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        with _sole_writer(path.parent):
            pass  # leftovers are removed, also where the bank is there
        if path.exists():
            try:
                return load(path)
            except InputError as error:
                warnings.warn(f"{error}; it is built anew", stacklevel=2)
        bank = build()
        bank.check_finite()
        with _sole_writer(path.parent):
            bank.save(path)
        Unfinished.beside(path).remove()
    return bank


@contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    """Let no other process write into the folder; what killed processes left there is removed."""
    with FileLock(folder / ".writing.lock"):
        remove_partial(folder)
        yield


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
