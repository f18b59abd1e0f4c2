"""Checks of a composed configuration: all keys exist, all values have their type and range."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pkgutil import resolve_name
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mrisem.config.effects import check_effects
from mrisem.config.schema import VERBS, Options, Verb
from mrisem.errors import InputError

_PLAIN = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
_HYDRA = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")
_ANY_KEY = "**"  # name that stands for the **kwargs of a signature


def check(verb: str, config: DictConfig, written: Iterable[str] = ()) -> DictConfig:
    """Check a composed configuration and return it resolved, with expanded paths.

    Args:
        verb: one of `VERBS`.
        config: configuration composed by Hydra.
        written: keys and groups of the user's own overrides.

    Raises:
        InputError: when a key is unknown, a value has a wrong type or range, or an option has no
            effect in this configuration.
    """
    raw = OmegaConf.to_container(config, resolve=False)
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    # a plain doctor checks no run: that would import the network and the data set
    if verb == "doctor" and not asks_of_a_run(written):
        shared = {name: values[name] for name in Verb.names()}  # type: ignore[call-overload,index]
        return OmegaConf.create({**values, **check_node(shared, Verb, "")})  # type: ignore[dict-item]
    checked = check_node(dict(values), VERBS[verb], "")  # type: ignore[arg-type]
    if verb != "doctor":  # doctor reports missing things itself
        check_effects(raw, checked, set(written))  # type: ignore[arg-type]
    return OmegaConf.create(checked)


def asks_of_a_run(written: Iterable[str]) -> bool:
    """Return whether overrides of `mrisem doctor` name options of a run.

    >>> asks_of_a_run(["paths.cache"]), asks_of_a_run(["experiment"])
    (False, True)
    """
    return bool({key.split(".")[0] for key in written} - {*Verb.names(), "hydra"})


def check_node(node: Mapping[str, Any], schema: type[Options] | None, path: str) -> dict[str, Any]:
    """Check keys and values of a node and its subnodes; return it with expanded paths.

    Args:
        node: resolved values.
        schema: schema of the node; the signature of its ``_target_`` counts as well.
        path: dotted name of the node, for messages.
    """
    types = known_types(node, schema, path)
    checked: dict[str, Any] = {}
    for key, value in sorted(node.items(), key=_order):
        if key in _HYDRA:
            checked[key] = value
            continue
        where = f"{path}.{key}" if path else key
        if key not in types and _ANY_KEY not in types:
            raise unknown(where, [f"{path}.{name}" if path else name for name in types])
        # options of a mask may be lists, of which each volume draws one entry
        is_list = path == "mask" and isinstance(value, list)
        entries = value if is_list else [value]
        results = [check_value(types.get(key, Any), entry, where) for entry in entries]
        checked[key] = results if is_list else results[0]
    return {key: checked[key] for key in node}


def _order(item: tuple[str, Any]) -> tuple[bool, bool]:
    """Sort key of options: nodes that refer to others come last, so that errors name the others."""
    key, value = item
    return isinstance(value, Mapping), key == "model"


def known_types(node: Mapping[str, Any], schema: type[Options] | None, path: str) -> dict[str, Any]:
    """Return the types of all options that a node may hold, by name."""
    types = signature_types(node["_target_"], path) if node.get("_target_") else {}
    if schema is not None:
        types |= {
            name: Annotated[field.annotation, *field.metadata]
            if field.metadata
            else field.annotation
            for name, field in schema.model_fields.items()
        }
    return types


def signature_types(target: str, path: str) -> dict[str, Any]:
    """Return the arguments of a ``_target_`` with their annotations.

    Raises:
        InputError: when the target cannot be imported or called.
    """
    try:
        function = resolve_name(target)
        parameters = inspect.signature(function).parameters.values()
    except Exception as error:  # the import of a user's module may raise anything
        raise InputError(
            f"{path}._target_ must name a class or function that can be imported, got {target} "
            f"({' '.join(str(error).split())}); correct the dotted name or install its package"
        ) from error
    constructor = function.__init__ if inspect.isclass(function) else function
    try:
        hints = get_type_hints(constructor, include_extras=True)
    except (NameError, TypeError):  # annotations with imports for type checkers only
        hints = {}
    names = {p.name: hints.get(p.name, Any) for p in parameters if p.kind is not p.VAR_KEYWORD}
    return names if len(names) == len(parameters) else names | {_ANY_KEY: Any}


def check_value(annotation: Any, value: Any, path: str) -> Any:
    """Check one value and return it; a subnode is checked by its own schema or signature."""
    if isinstance(value, Mapping) and get_origin(annotation) is not dict:
        # the schema may stand in a union, such as ``Encoder | None``
        schemas = [kind for kind in (annotation, *get_args(annotation)) if _is_schema(kind)]
        if schemas or "_target_" in value:
            return check_node(value, schemas[0] if schemas else None, path)
        return dict(value)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=_PLAIN)
    except Exception:  # pydantic has no schema for this type: YAML cannot hold its values
        return value
    try:
        # lists are checked leniently: a tuple of the signature may be written as a list
        return adapter.validate_python(value, strict=not isinstance(value, list))
    except ValidationError as error:
        raise InputError(_message(path, value, error)) from error


def _is_schema(annotation: Any) -> bool:
    """Return whether an annotation is a class of the schema."""
    return inspect.isclass(annotation) and issubclass(annotation, Options)


def unknown(path: str, options: Iterable[str]) -> InputError:
    """Make the error for an unknown key, with the nearest of the existing options."""
    names = [name for name in options if not name.rpartition(".")[2].startswith("_")]
    last = path.rpartition(".")[2]
    # a key of another group with the same last part is a likely mistake, too
    nearest = get_close_matches(path, names, 1, 0.7) or [
        name for name in names if name.rpartition(".")[2] == last
    ]
    siblings = [name for name in names if name.count(".") == path.count(".")]
    options_text = f"there are {', '.join(siblings) or 'none'}"
    hint = f"did you mean {nearest[0]}?" if nearest else options_text
    return InputError(f"unknown option {path}; {hint}")


def _message(path: str, value: Any, error: ValidationError) -> str:
    """Return key, rule and value of pydantic's error, in one line."""
    # a union of types gives an error for each of them
    rules = dict.fromkeys(_rule(part["msg"]) for part in error.errors())
    return f"{path} must be {' or '.join(rules)}, got {value!r}"


def _rule(message: str) -> str:
    """Return the part of pydantic's sentence that follows "must be".

    >>> _rule("Input should be greater than 0"), _rule("Input should be a valid integer")
    ('greater than 0', 'a valid integer')
    """
    rule = message.removeprefix("Input should be ").removeprefix("Value error, ")
    return rule.split(", unable to")[0].split(", got a number")[0]
