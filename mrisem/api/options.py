"""Options of the command line from Python values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mrisem.errors import InputError

Overrides = Mapping[str, Any] | Iterable[str] | None
"""Options of the command line: ``{"prior.balance": 0.1}`` or ``["prior.balance=0.1"]``."""


def option(key: str, value: Any) -> str:
    """Write one option as the command line takes it.

    >>> option("mask.acceleration", 4), option("prior.levels", [1, 2]), option("returns", None)
    ('mask.acceleration=4', 'prior.levels=[1,2]', 'returns=null')
    """
    return f"{key}={_text(value)}"


def words(overrides: Overrides) -> list[str]:
    """Return overrides as words of the command line.

    >>> words({"fit.iterations": 5, "fit": "all"}), words(["seed=1"]), words(None)
    (['fit.iterations=5', 'fit=all'], ['seed=1'], [])

    Raises:
        InputError: when they are one string.
    """
    if isinstance(overrides, str):
        raise InputError(
            f"overrides must be a mapping or a list of key=value, got the text {overrides!r}; "
            f"write overrides=[{overrides!r}]"
        )
    if isinstance(overrides, Mapping):
        return [option(key, value) for key, value in overrides.items()]
    return list(overrides or ())


def given(**options: Any) -> list[str]:
    """Return options that are not None; a name's ``__`` stands for its point.

    >>> given(fit__iterations=5, scale=None)
    ['fit.iterations=5']
    """
    return [
        option(name.replace("__", "."), value)
        for name, value in options.items()
        if value is not None
    ]


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(item)}" for key, item in value.items()) + "}"
    return str(value)
