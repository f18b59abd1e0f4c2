"""Cache of banks: safetensors files with a checksum, written as a whole and built only once."""

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

SAVE_EVERY = 60.0  # seconds between two saves of an unfinished build
Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Bank(ABC):
    """Embeddings of good and bad images, in the form of a route; kept in a safetensors file.

    Args:
        description: facts on the bank's images and encoder, for people; JSON values.
    """

    FORMAT: ClassVar[str]  # name and version of the file's format, checked when a file is read
    description: dict[str, Any] = field(default_factory=dict)

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Return the bank on ``device``."""

    @abstractmethod
    def summary(self) -> list[str]:
        """Return lines for people: number of entries, and separation of the two sides."""

    @abstractmethod
    def content(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors, and the other values that `of_content` needs (no description)."""

    @classmethod
    @abstractmethod
    def of_content(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Self:
        """Make a bank from its content; ``facts`` holds the description as well."""

    def save(self, path: Path) -> None:
        """Write the bank to a file as a whole, and its description beside it as JSON."""
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
        """Raise InputError if a tensor holds NaN or infinity."""
        for name, tensor in self.content()[0].items():
            if not bool(torch.isfinite(tensor).all()):
                raise InputError(
                    f"a bank must be finite, got NaN or infinity in {name}; remove bad images from "
                    "auxiliary.root, or set encoder.dtype=float32"
                )


@dataclass
class Unfinished:
    """State of an interrupted build, from which a later build of the same bank continues.

    The name of the file holds the bank's content key, so only a build of the same bank reads it.

    Args:
        path: file of the state; None: no state is kept.
    """

    path: Path | None = None

    @classmethod
    def beside(cls, bank: Path) -> Unfinished:
        """Return the state beside the file of a bank that is to be built."""
        return cls(bank.with_suffix(".unfinished"))

    def read(self) -> Tensors:
        """Read the state of an interrupted build; empty if there is none or it is damaged."""
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
        """Save ``state()`` once a minute, and when an exception interrupts the build.

        Yields:
            function to call after each step of the build.
        """
        last = time.monotonic()

        def step() -> None:
            nonlocal last
            if time.monotonic() - last >= SAVE_EVERY:
                self.save(state())
                last = time.monotonic()

        try:
            yield step
        except BaseException:  # also KeyboardInterrupt and a signal's `Interrupted`
            self.save(state())
            raise

    def save(self, tensors: Tensors) -> None:
        """Write a state as a whole."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _sole_writer(self.path.parent), whole(self.path) as partial:
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)

    def remove(self) -> None:
        """Remove the state, once the bank is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


B = TypeVar("B", bound=Bank)


def load_or_build(path: Path, load: Callable[[Path], B], build: Callable[[], B]) -> B:
    """Load the bank of a file; if the file is missing or damaged, build the bank and save it.

    A lock makes sure that of several processes one builds the bank and the others load it. The
    state of the unfinished build (`Unfinished.beside`) is removed when the bank is complete.

    Args:
        path: file of the bank.
        load: reads the file.
        build: builds the bank.

    Raises:
        InputError: when the built bank is not finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        with _sole_writer(path.parent):
            pass  # removes the leftovers of killed processes, also if the bank is complete
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
    """Keep other processes from writing into the folder; remove leftovers of killed ones."""
    with FileLock(folder / ".writing.lock"):
        remove_partial(folder)
        yield


def content_key(facts: dict[str, Any]) -> str:
    """Hash facts to a content key of 24 hexadecimal digits."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _digest(tensors: dict[str, Tensor]) -> str:
    """Hash names and bytes of tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
