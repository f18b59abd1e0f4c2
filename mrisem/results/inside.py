"""Safe use of text from other people's files: paths within a folder, cells without formulas."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator

from mrisem.errors import InputError
from mrisem.files import reading

# First characters of cells that spreadsheets compute; the last is the mark of `escape_formula`.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
_MAX_SLUG = 120  # characters; file systems allow 255


def plain_name(name: str) -> str:
    """Return a file's name unchanged if it has no folder.

    Raises:
        ValueError: when it could lead to another folder.

    >>> plain_name("a.h5")
    'a.h5'
    """
    if name in ("", ".", "..") or re.search(r"[/\\\x00]", name):
        raise ValueError(f"a file name must have no folder, got {name!r:.80}")
    return name


FileName = Annotated[str, AfterValidator(plain_name)]


def inside(folder: Path, name: str) -> Path:
    """Return a path in a folder or its subfolders.

    Raises:
        InputError: when the name, or a symbolic link on its way, leads out of the folder.
    """
    path = folder / name
    with reading(path, "a path", "remove it"):
        leads_out = not path.resolve().is_relative_to(folder.resolve())
    if leads_out:
        raise InputError(
            f"files of {folder} must lie in it, got {one_line(name)}, which leads elsewhere; "
            "copy it there, or remove it"
        )
    return path


def one_line(text: str) -> str:
    r"""Return a text in one line, with ``?`` for control characters, which a terminal would obey.

    >>> one_line("a\n\x1b[31mb")
    'a ?[31mb'
    """
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def escape_formula(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would take for a formula.

    >>> escape_formula("=1+1"), escape_formula("tv"), escape_formula("'tv")
    ("'=1+1", 'tv', "''tv")
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def unescape_formula(text: str) -> str:
    """Return the text that was given to `escape_formula`.

    >>> [unescape_formula(escape_formula(text)) for text in ("=1+1", "tv", "'tv")]
    ['=1+1', 'tv', "'tv"]
    """
    return text.removeprefix("'")


def slug(text: str) -> str:
    """Return a text as part of a file name; a long or non-Latin text ends in its hash.

    >>> slug("brain, gaussian R=4")
    'brain_gaussian_r_4'
    >>> slug("心")
    'x_082c4a'
    """
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    if name and text.isascii() and len(name) <= _MAX_SLUG:
        return name
    return f"{name[:_MAX_SLUG] or 'x'}_{sha256(text.encode(errors='replace')).hexdigest()[:6]}"


def load_yaml(path: Path) -> object:
    """Read YAML as plain values, without making objects; None: there is no such file."""
    if not path.is_file():
        return None
    with reading(path, "YAML", "restore it, or remove it"):
        return yaml.safe_load(path.read_text(encoding="utf-8"))
