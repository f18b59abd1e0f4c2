"""YAML files: where they are, who else brings some, and the choices that they offer. No Hydra."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import mrisem

_PACKAGE = Path(mrisem.__file__).parent
# inside an installed package, or beside it in a checkout
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
PLUGINS = "mrisem.conf"  # entry points: each names a package that holds YAML files


@cache
def installed() -> list[tuple[str, str]]:
    """Return name and package of each entry point of `PLUGINS`; finding them takes 15 ms."""
    return [(entry.name, entry.value) for entry in entry_points(group=PLUGINS)]


def complete_choice(line: str) -> list[str] | None:
    """Complete ``group=start`` at the end of a line by the names of our YAML files.

    To ask Hydra takes a third of a second: its import, not the question.

    Args:
        line: the words behind the verb.

    Returns:
        Completions; None where Hydra must be asked: of an option, of a group that is not ours, and
        where other folders or packages have YAML files.

    >>> complete_choice("data=knee model=une"), complete_choice("mask.acc")
    (['model=unet'], None)
    """
    typed = re.search(r"(?:^|\s)(?P<group>\w+)=(?P<start>\w*)$", line)
    if not typed or "-cd" in line or "--config-dir" in line or "hydra" in line or installed():
        return None
    names = sorted(path.stem for path in (CONF / typed["group"]).glob("*.yaml"))
    matching = [f"{typed['group']}={name}" for name in names if name.startswith(typed["start"])]
    return matching if names else None
