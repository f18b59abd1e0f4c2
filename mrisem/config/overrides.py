"""The command line before Hydra reads it: quoted paths, options that YAML files leave out."""

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

PATHS = {
    *("data.root", "auxiliary.root", "output_dir", "model.checkpoint", "encoder.path"),
    *("encoder.adapter", "encoder.weights", "paths.cache", "source", "root", "pairs", "earlier"),
    *("data.axes", "mask.path", "data.sensitivity_maps"),
}
_SAFE = re.compile(r"[\w./:@%+$\\-]*")  # what Hydra's grammar takes without quotes


def quote_paths(arguments: Sequence[str], multirun: bool) -> list[str]:
    r"""Quote the values of path options that Hydra's grammar would not take as they are.

    With ``multirun`` a comma separates the values of a sweep.

    >>> quote_paths(["data.root=/a (b)", "model=unet"], False)
    ["data.root='/a (b)'", 'model=unet']
    >>> quote_paths(["data.root=~/a,/b=c"], True)
    ["data.root='~/a','/b=c'"]
    """
    return [_quote_path(argument, multirun) for argument in arguments]


def _quote_path(argument: str, multirun: bool) -> str:
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in PATHS or value[:1] in ("'", '"', "[") or "${" in value:
        return argument
    # a comma within data.axes separates names, never runs of a sweep
    whole = key == "data.axes" or not multirun or Path(expand(value)).exists()
    parts = [value] if whole else value.split(",")
    return f"{key}={','.join(map(_quoted, parts))}"


def _quoted(text: str) -> str:
    if _SAFE.fullmatch(text):
        return text
    return "'" + text.replace("'", r"\'") + "'"


def parse(overrides: Iterable[str]) -> list[Override]:
    """Parse overrides.

    Raises:
        InputError: when one is not of Hydra's grammar.
    """
    parser, parsed = OverridesParser.create(), []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            key, _, value = text.partition("=")
            raise InputError(
                f"{text!r} is not key=value as Hydra reads it; quote a value with special "
                f"characters inside and out: '{key}=\"{value}\"'"
            ) from error
    return parsed


def adds(overrides: Iterable[str]) -> bool:
    """Whether any override adds an option, such as ``+seed=1``.

    Raises:
        InputError: when one is not of Hydra's grammar.
    """
    return any(override.is_add() for override in parse(overrides))


def repair(verb: str, overrides: Sequence[str], conf: Path, searched: Sequence[str]) -> list[str]:
    """Let an option be set that the YAML leaves to its default, and refuse an unknown one.

    Hydra takes an override only of a key that the composed YAML files show. An argument of what a
    ``_target_`` names is an option just the same.

    Args:
        verb: key of the schema's `VERBS`.
        overrides: words of the user.
        conf: folder of the YAML files.
        searched: more folders of YAML files.

    Raises:
        InputError: when an option is unknown.
    """
    parsed = parse(overrides)
    repaired = list(overrides)
    with initialize_config_dir(str(conf), version_base="1.3"):
        folders = ",".join(f"file://{path}" for path in searched)
        more = [f"hydra.searchpath=[{folders}]"] if searched else []
        groups = {o.key_or_group for o in parsed if _is_group(o)}
        chosen = [text for o in parsed if o.key_or_group in groups for text in _choices(o)[:1]]
        config = compose(verb, [*more, *chosen])
        for index, override in enumerate(parsed):
            key = override.key_or_group
            if key in groups or override.is_delete() or key.startswith("hydra"):
                continue
            others = _variants(key, parsed, chosen)
            if not override.is_force_add() and _missing(config, key):
                if not all(_missing(compose(verb, [*more, *one]), key) for one in others):
                    continue
                _check_known(verb, config, key)
                repaired[index] = f"++{overrides[index].lstrip('+')}"
    return repaired


def _is_group(override: Override) -> bool:
    loader = GlobalHydra.instance().config_loader()
    return "/" in override.key_or_group or bool(loader.get_group_options(override.key_or_group))


def _choices(override: Override) -> list[str]:
    """Return the override of a group for each choice of a sweep."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.get_key_element()
    return [f"{key}={choice}" for choice in override.sweep_string_iterator()]


def _variants(key: str, parsed: Sequence[Override], chosen: Sequence[str]) -> list[list[str]]:
    """Return compositions with the other choices that a sweep makes in the key's own group."""
    group = key.split(".")[0]
    swept = [text for o in parsed if o.key_or_group == group for text in _choices(o)[1:]]
    kept = [text for text in chosen if not text.startswith(f"{group}=")]
    return [[*kept, text] for text in swept]


def _missing(config: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    return not isinstance(node, DictConfig) or name not in node


def _check_known(verb: str, config: DictConfig, key: str) -> None:
    """Refuse a key that is no argument of its node's ``_target_``."""
    parent, _, name = key.rpartition(".")
    node: Any = OmegaConf.select(config, parent) if parent else config
    siblings = _dotted(config, "")
    if isinstance(node, DictConfig):
        raw: Any = OmegaConf.to_container(node, resolve=False)
        types = known_types({"_target_": raw.get("_target_")}, None, parent)
        if name in types or "**" in types:
            return
        siblings += [f"{parent}.{argument}" for argument in types]
        schema = VERBS[verb].model_fields.get(parent)
        of_others = schema is not None and name in getattr(schema.annotation, "model_fields", ())
        bare = set(map(str, raw)) <= {"name", "_target_", "settings", "term", "make"}
        if of_others or bare:
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
