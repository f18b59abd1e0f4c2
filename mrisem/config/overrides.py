"""Preparation of the command line for Hydra: quoted paths, and options that no YAML file has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from mrisem.config.check import known_types, unknown
from mrisem.config.schema import VERBS, expand
from mrisem.errors import InputError

# Options whose values may hold characters of Hydra's grammar.
PATHS = {
    *("data.root", "auxiliary.root", "output_dir", "model.checkpoint", "encoder.path"),
    *("encoder.adapter", "encoder.weights", "paths.cache", "source", "root", "pairs", "earlier"),
    *("data.axes", "mask.path", "data.sensitivity_maps", "generator.path"),
}
_SAFE = re.compile(r"[\w./:@%+$\\-]*")  # characters that Hydra's grammar takes without quotes


def quote_paths(arguments: Sequence[str], multirun: bool) -> list[str]:
    r"""Quote values of path options that Hydra's grammar would refuse.

    With ``multirun`` a comma separates the values of a sweep.

    >>> quote_paths(["data.root=/a (b)", "model=unet"], False)
    ["data.root='/a (b)'", 'model=unet']
    >>> quote_paths(["data.root=~/a,/b=c"], True)
    ["data.root='~/a','/b=c'"]
    """
    return [_quote_path(argument, multirun) for argument in arguments]


def _quote_path(argument: str, multirun: bool) -> str:
    """Quote the value of one argument, or each value of a sweep."""
    key, equals, value = argument.partition("=")
    # values that the user has quoted, lists and references are Hydra's grammar already
    if not equals or key.lstrip("+") not in PATHS or value[:1] in ("'", '"', "[") or "${" in value:
        return argument
    # a comma within data.axes separates names, and within an existing path it is part of the name
    is_single = key == "data.axes" or not multirun or Path(expand(value)).exists()
    parts = [value] if is_single else value.split(",")
    return f"{key}={','.join(map(_quoted, parts))}"


def _quoted(text: str) -> str:
    """Return a text in quotes, if Hydra's grammar needs them."""
    if _SAFE.fullmatch(text):
        return text
    return "'" + text.replace("'", r"\'") + "'"


def parse(overrides: Iterable[str]) -> list[Override]:
    """Parse overrides.

    Raises:
        InputError: when one does not follow Hydra's grammar.
    """
    parser, parsed = OverridesParser.create(), []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            key, _, value = text.partition("=")
            raise InputError(
                f"an override must be key=value in Hydra's grammar, got {text!r}; quote a value "
                f"with special characters twice: '{key}=\"{value}\"'"
            ) from error
    return parsed


def adds(overrides: Iterable[str]) -> bool:
    """Return whether any override adds an option, such as ``+seed=1``.

    Raises:
        InputError: when one does not follow Hydra's grammar.
    """
    return any(override.is_add() for override in parse(overrides))


def repair(verb: str, overrides: Sequence[str], conf: Path, searched: Sequence[str]) -> list[str]:
    """Allow options that no YAML file shows, and refuse unknown ones.

    Hydra accepts overrides only for keys of the composed YAML files. Arguments of a ``_target_``
    with defaults are options as well: their overrides get Hydra's ``++``.

    Args:
        verb: key of the schema's `VERBS`.
        overrides: overrides of the user.
        conf: folder of the YAML files.
        searched: further folders of YAML files.

    Raises:
        InputError: when an option is unknown.
    """
    parsed = parse(overrides)
    repaired = list(overrides)
    with initialize_config_dir(str(conf), version_base="1.3"):
        folders = ",".join(f"file://{path}" for path in searched)
        search_path = [f"hydra.searchpath=[{folders}]"] if searched else []
        # choices of groups come first: they decide which keys exist
        groups = {o.key_or_group for o in parsed if _is_group(o)}
        chosen = [text for o in parsed if o.key_or_group in groups for text in _choices(o)[:1]]
        config = compose(verb, [*search_path, *chosen])
        for index, override in enumerate(parsed):
            key = override.key_or_group
            if key in groups or override.is_delete() or key.startswith("hydra"):
                continue
            if override.is_force_add() or not _missing(config, key):
                continue
            # in a sweep over a group, another choice may have the key
            variants = _variants(key, parsed, chosen)
            if all(_missing(compose(verb, [*search_path, *v]), key) for v in variants):
                _check_known(verb, config, key)
                repaired[index] = f"++{overrides[index].lstrip('+')}"
    return repaired


def _is_group(override: Override) -> bool:
    """Return whether an override chooses a YAML file of a group."""
    loader = GlobalHydra.instance().config_loader()
    return "/" in override.key_or_group or bool(loader.get_group_options(override.key_or_group))


def _choices(override: Override) -> list[str]:
    """Return the override of a group for each choice of a sweep."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.get_key_element()
    return [f"{key}={choice}" for choice in override.sweep_string_iterator()]


def _variants(key: str, parsed: Sequence[Override], chosen: Sequence[str]) -> list[list[str]]:
    """Return the choices of groups with which a sweep also composes the group of a key."""
    group = key.split(".")[0]
    swept = [text for o in parsed if o.key_or_group == group for text in _choices(o)[1:]]
    kept = [text for text in chosen if not text.startswith(f"{group}=")]
    return [[*kept, text] for text in swept]


def _missing(config: DictConfig, key: str) -> bool:
    """Return whether the configuration lacks a key."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return not isinstance(node, DictConfig) or name not in node


def _check_known(verb: str, config: DictConfig, key: str) -> None:
    """Raise InputError unless a key is an argument of its node's ``_target_``."""
    parent, _, name = key.rpartition(".")
    node: Any = OmegaConf.select(config, parent) if parent else config
    siblings = _dotted(config, "")  # candidates for "did you mean"
    if isinstance(node, DictConfig):
        raw: Any = OmegaConf.to_container(node, resolve=False)
        types = known_types({"_target_": raw.get("_target_")}, None, parent)
        if name in types or "**" in types:
            return
        siblings += [f"{parent}.{argument}" for argument in types]
        schema = VERBS[verb].model_fields.get(parent)
        is_of_others = schema is not None and name in getattr(schema.annotation, "model_fields", ())
        # a choice without options of its own, such as prior=none: no other key is near
        is_bare = set(map(str, raw)) <= {"name", "_target_", "settings", "term", "make"}
        if is_of_others or is_bare:
            choice = f"{parent}={node.name}" if node.get("name") else f"the chosen {parent}"
            raise InputError(f"{choice} has no option {name}, got {key}; choose another {parent}")
    raise unknown(key, siblings)


def _dotted(node: Any, path: str) -> list[str]:
    """Return the dotted names of all options below a node."""
    names = []
    raw: Any = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    for key, value in raw.items():
        where = f"{path}.{key}" if path else str(key)
        names += [where] + (_dotted(value, where) if isinstance(value, dict) else [])
    return names
