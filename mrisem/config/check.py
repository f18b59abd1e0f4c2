"""Checks of a composed configuration: every key known, every value of its type and range."""

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
_ANY_KEY = "**"  # among the names of a signature that ends in **kwargs


def check(verb: str, config: DictConfig, written: Iterable[str] = ()) -> DictConfig:
    """Check a composed configuration and return it resolved, its paths expanded.

    Args:
        verb: one of `VERBS`.
        config: what Hydra composed.
        written: keys and groups that the user's own overrides name.

    Raises:
        InputError: a key is unknown, a value is of the wrong type or out of its range, or an option
            cannot act in this composition.
    """
    raw = OmegaConf.to_container(config, resolve=False)
    try:
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    if verb == "doctor" and not asks_of_a_run(written):  # nor is what would make a run imported
        shared = {name: values[name] for name in Verb.names()}  # type: ignore[call-overload,index]
        return OmegaConf.create({**values, **check_node(shared, Verb, "")})  # type: ignore[dict-item]
    checked = check_node(dict(values), VERBS[verb], "")  # type: ignore[arg-type]
    if verb != "doctor":  # which says by itself what is missing
        check_effects(raw, checked, set(written))  # type: ignore[arg-type]
    return OmegaConf.create(checked)


def asks_of_a_run(written: Iterable[str]) -> bool:
    """Whether overrides of `mrisem doctor` name anything of a run, beside places and its seed.

    >>> asks_of_a_run(["paths.cache"]), asks_of_a_run(["experiment"])
    (False, True)
    """
    return bool({key.split(".")[0] for key in written} - {*Verb.names(), "hydra"})


def check_node(node: Mapping[str, Any], schema: type[Options] | None, path: str) -> dict[str, Any]:
    """Check the keys and values of a node and of those below; return it with paths expanded.

    Args:
        node: resolved values.
        schema: schema of the node; with ``_target_`` the signature of what it names counts, too.
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
        several = path == "mask" and isinstance(value, list)  # masks of each, drawn by volume
        each = value if several else [value]
        results = [check_value(types.get(key, Any), one, where) for one in each]
        checked[key] = results if several else results[0]
    return {key: checked[key] for key in node}


def _order(item: tuple[str, Any]) -> tuple[bool, bool]:
    """Put what refers to other options behind them, so that an error names what was written."""
    key, value = item
    return isinstance(value, Mapping), key == "model"


def known_types(node: Mapping[str, Any], schema: type[Options] | None, path: str) -> dict[str, Any]:
    """Return the type of every option that a node may hold."""
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
    """Return name and annotation of each argument of what ``_target_`` names.

    Raises:
        InputError: when it cannot be imported or called.
    """
    try:
        function = resolve_name(target)
        parameters = inspect.signature(function).parameters.values()
    except Exception as error:  # whatever the import of a user's module raises
        raise InputError(
            f"{path}._target_ must name a class or function that can be imported, got {target} "
            f"({' '.join(str(error).split())}); correct the dotted name or install its package"
        ) from error
    constructor = function.__init__ if inspect.isclass(function) else function
    try:
        hints = get_type_hints(constructor, include_extras=True)
    except (NameError, TypeError):  # names that only a type checker imports
        hints = {}
    names = {p.name: hints.get(p.name, Any) for p in parameters if p.kind is not p.VAR_KEYWORD}
    return names if len(names) == len(parameters) else names | {_ANY_KEY: Any}


def check_value(annotation: Any, value: Any, path: str) -> Any:
    """Check one value; a node below is checked by its own schema or signature."""
    if isinstance(value, Mapping) and get_origin(annotation) is not dict:
        schemas = [one for one in (annotation, *get_args(annotation)) if _is_schema(one)]
        if schemas or "_target_" in value:
            return check_node(value, schemas[0] if schemas else None, path)
        return dict(value)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=_PLAIN)
    except (
        Exception
    ):  # an annotation that pydantic has no schema for says nothing about YAML values
        return value
    try:
        return adapter.validate_python(value, strict=not isinstance(value, list))
    except ValidationError as error:
        raise InputError(_message(path, value, error)) from error


def _is_schema(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, Options)


def unknown(path: str, known: Iterable[str]) -> InputError:
    """Return the error for an unknown key; it names the nearest known one."""
    names = [name for name in known if not name.rpartition(".")[2].startswith("_")]
    last = path.rpartition(".")[2]
    nearest = get_close_matches(path, names, 1, 0.7) or [
        name for name in names if name.rpartition(".")[2] == last
    ]
    beside = [name for name in names if name.count(".") == path.count(".")]
    hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(beside) or 'none'}"
    return InputError(f"unknown option {path}; {hint}")


def _message(path: str, value: Any, error: ValidationError) -> str:
    """Say rule, value and place of the first thing that pydantic objects to."""
    rules = dict.fromkeys(_rule(one["msg"]) for one in error.errors())  # one for each kind allowed
    return f"{path} must be {' or '.join(rules)}, got {value!r}"


def _rule(message: str) -> str:
    """Turn pydantic's sentence into what follows "must be".

    >>> _rule("Input should be greater than 0"), _rule("Input should be a valid integer")
    ('greater than 0', 'a valid integer')
    """
    rule = message.removeprefix("Input should be ").removeprefix("Value error, ")
    return rule.split(", unable to")[0].split(", got a number")[0]
