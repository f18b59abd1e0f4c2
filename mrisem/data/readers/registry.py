"""Choice of the reader of a file, by the file's ending and content."""

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
    """Return the readers of other installed packages, followed by those of this package.

    Raises:
        InputError: when an entry point cannot be imported, or is no reader.
    """
    found_readers: list[Reader] = []
    for point in entry_points(group=GROUP):
        try:
            reader = point.load()()
            is_reader = all(hasattr(reader, n) for n in ("suffixes", "accepts", "read", "files"))
        except Exception as error:  # the import of other code may raise anything
            raise InputError(
                f"entry point {point.name} of {GROUP} must name a class that can be imported, got "
                f"{point.value} ({' '.join(str(error).split())}); correct or remove its package"
            ) from error
        if not is_reader:
            raise InputError(
                f"entry point {point.name} of {GROUP} must name a class with suffixes, accepts, "
                f"read and files, got {point.value}; add what is missing (docs/extending.md)"
            )
        found_readers.append(reader)
    found_readers += [NoiseLayoutReader(), MrdReader(), BartReader(), NpyReader(), NpzReader()]
    return (*found_readers, MatlabReader())


def suffixes() -> tuple[str, ...]:
    """Return the endings of the data files of every format."""
    return tuple(dict.fromkeys((*NATIVE, *(end for r in readers() for end in r.suffixes))))


def find_reader(path: Path, prewhiten: bool = True) -> Reader | None:
    """Return the reader of a file; None: the file has fastMRI's layout, and needs none.

    Raises:
        InputError: when the content does not match the ending.
    """
    ending = path.suffix.lower()
    candidates = [reader for reader in readers() if ending in reader.suffixes]
    for reader in candidates:
        # without whitening, noise samples in a file of fastMRI's layout are ignored
        if isinstance(reader, NoiseLayoutReader) and not prewhiten:
            continue
        if reader.accepts(path):
            return reader
    if ending in NATIVE:
        return None
    raise InputError(
        f"a file that ends in {ending} must have that format"
        f"{' (and a .hdr file beside it)' if ending == '.cfl' else ''}, got another content in "
        f"{path}; rename or remove it"
    )


def code_of(reader: Reader) -> str:
    """Return the hash of the code on which a reader's result depends: its file and this package."""
    digest = hashlib.sha256()
    reader_file = inspect.getsourcefile(type(reader))
    package: Sequence[Path] = sorted(Path(__file__).parent.glob("*.py"))
    for source in (*package, *([Path(reader_file)] if reader_file else [])):
        digest.update(source.read_bytes())
    return digest.hexdigest()
