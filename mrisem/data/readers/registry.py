"""Which reader reads a file: by its ending and its content."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from mrisem.data.readers.arrays import NpyReader, NpzReader
from mrisem.data.readers.bart import BartReader
from mrisem.data.readers.layout import NoiseLayoutReader
from mrisem.data.readers.matlab import MatlabReader
from mrisem.data.readers.mrd import MrdReader
from mrisem.data.readers.scan import Reader
from mrisem.errors import InputError

GROUP = "mrisem.readers"
NATIVE = (".h5", ".hdf5")


@cache
def readers() -> tuple[Reader, ...]:
    """Return the readers of installed packages, and those that come with this one.

    Raises:
        InputError: when one of them cannot be imported, or is no reader.
    """
    made: list[Reader] = []
    for point in entry_points(group=GROUP):
        try:
            reader = point.load()()
            fits = all(hasattr(reader, n) for n in ("suffixes", "accepts", "read", "files"))
        except Exception as error:  # whatever the import of a stranger's module raises
            raise InputError(
                f"entry point {point.name} of {GROUP} must name a class that can be imported, got "
                f"{point.value} ({' '.join(str(error).split())}); correct or remove its package"
            ) from error
        if not fits:
            raise InputError(
                f"entry point {point.name} of {GROUP} must name a class with suffixes, accepts, "
                f"read and files, got {point.value}; see docs/extending.md"
            )
        made.append(reader)
    made += [NoiseLayoutReader(), MrdReader(), BartReader(), NpyReader(), NpzReader()]
    return (*made, MatlabReader())


def suffixes() -> tuple[str, ...]:
    """Return the endings of data files of every format."""
    return tuple(dict.fromkeys((*NATIVE, *(end for r in readers() for end in r.suffixes))))


def find_reader(path: Path, prewhiten: bool = True) -> Reader | None:
    """Return the reader of a file; None for fastMRI's own layout, which is read as it is.

    Raises:
        InputError: when its content is not what its ending says.
    """
    ending = path.suffix.lower()
    candidates = [reader for reader in readers() if ending in reader.suffixes]
    for reader in candidates:
        if isinstance(reader, NoiseLayoutReader) and not prewhiten:
            continue
        if reader.accepts(path):
            return reader
    if ending in NATIVE:
        return None
    raise InputError(
        f"a file that ends in {ending} must hold what the ending says"
        f"{' (and a .hdr file beside it)' if ending == '.cfl' else ''}, got another content in "
        f"{path}; rename or remove it"
    )


def code_of(reader: Reader) -> str:
    """Hash of the code that a reader's result depends on: its own file and this package."""
    digest = hashlib.sha256()
    own = inspect.getsourcefile(type(reader))
    package: Sequence[Path] = sorted(Path(__file__).parent.glob("*.py"))
    for source in (*package, *([Path(own)] if own else [])):
        digest.update(source.read_bytes())
    return digest.hexdigest()
