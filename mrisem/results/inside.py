"""Foreign text as data: names that stay inside a folder, cells that no spreadsheet computes."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator

from mrisem.errors import InputError
from mrisem.files import reading

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
_MAX_SLUG = 120  # characters; file systems allow 255


def plain_name(name: str) -> str:
    """Return a file's name as it is; a ValueError where it could lead to another folder.

    >>> plain_name("a.h5")
    'a.h5'
    """
    if name in ("", ".", "..") or re.search(r"[/\\\x00]", name):
        raise ValueError(f"a file name must have no folder, got {name!r:.80}")
    return name


FileName = Annotated[str, AfterValidator(plain_name)]


def inside(folder: Path, name: str) -> Path:
    """Return a path below a folder.

    Raises:
        InputError: the name, or a link that it goes through, leads out of the folder.
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
    r"""Return a text in one line, without characters that a terminal acts on.

    >>> one_line("a\n\x1b[31mb")
    'a ?[31mb'
    """
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def defused(text: str) -> str:
    """Mark text that a spreadsheet would compute; `fused` takes the mark away.

    >>> defused("=1+1"), defused("tv"), defused("'tv")
    ("'=1+1", 'tv', "''tv")
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def fused(text: str) -> str:
    """Return the text that `defused` got.

    >>> [fused(defused(text)) for text in ("=1+1", "tv", "'tv")]
    ['=1+1', 'tv', "'tv"]
    """
    return text.removeprefix("'")


def slug(text: str) -> str:
    """Return a text as part of a file name; what is lost of a long or foreign one is hashed.

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
    """Read YAML as plain values: nothing in it is resolved or made; None where there is no file."""
    if not path.is_file():
        return None
    with reading(path, "YAML", "restore it, or remove it"):
        return yaml.safe_load(path.read_text(encoding="utf-8"))
