"""Composition of a verb's configuration: search path of YAML files, names of choices and jobs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict

from mrisem.config.check import check
from mrisem.config.choices import CONF, installed
from mrisem.config.overrides import adds, parse, quote_paths, repair
from mrisem.config.schema import NO_ARGUMENTS, VERBS, Choice, expand, store_defaults

SWEPT = "MRISEM_SWEPT"  # variable with the swept keys, inherited by processes of jobs
# Paths and sizes do not belong into the name of a job's folder, unless they are swept.
_UNNAMED = (
    *("output_dir", "data.root", "data.max_slices", "auxiliary.root", "model.checkpoint"),
    *("scale", "paths.cache"),
)
_MAX_NAME = 200  # characters of a folder's name; file systems allow 255


class InstalledConfigs(SearchPathPlugin):
    """Plugin that adds the YAML files of installed packages (`choices.PLUGINS`)."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the packages to Hydra's search path."""
        for name, package in installed():
            search_path.append(provider=name, path=f"pkg://{package}")


def _the_store(memo: dict[int, object]) -> ConfigStore:
    """Replace ``deepcopy`` of Hydra's store of defaults: return the store itself.

    Hydra copies the whole store each time that it lists the choices of a group, which took a second
    for ``--help``. Nodes that it loads from the store are copied anyway.
    """
    return ConfigStore.instance()


def folder_name(overrides: Iterable[str]) -> str:
    """Return the overrides of a sweep's job as the name of a folder, at most 200 characters.

    >>> folder_name(["seed=0", "encoder.path=weights/mine", "data.root=/data"])
    'encoder.path-weights_mine__seed-0'
    >>> folder_name(["++encoder.random_seed=0", "a=1"])
    'a-1__encoder.random_seed-0'
    """
    swept = os.environ.get(SWEPT, "").split(",")
    named = []
    for override in parse(overrides):
        key = override.get_key_element().lstrip("+")
        if key in swept or key not in _UNNAMED:
            named.append(f"{key}-{override.get_value_element_as_str()}")
    name = "__".join(sorted(named)).replace("/", "_")
    if len(name) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name[: _MAX_NAME - len(digest) - 1]}-{digest}"


def target_of(choice: DictConfig) -> dict[str, Any]:
    """Return the ``_target_`` of an encoder with its arguments, for a network that has it inside.

    ``encoder: ${target_of:${encoder}}`` in the YAML of a network hands it the encoder of the group.
    """
    options: dict[str, Any] = OmegaConf.to_container(choice, resolve=True)  # type: ignore[assignment]
    return {key: value for key, value in options.items() if key not in NO_ARGUMENTS}


def compose(verb: str, overrides: Iterable[str] = ()) -> DictConfig:
    """Compose and check a verb's configuration, like the command line.

    Raises:
        InputError: when an option is unknown, out of range, or without effect.
    """
    words = quote_paths([*overrides], multirun=False)
    try:
        if adds(words):  # Hydra would accept any option after a plus, also a misspelt one
            raise ConfigCompositionException
        config = _compose(verb, words)
    except ConfigCompositionException:
        words = repair(verb, words, CONF, ())
        config = _compose(verb, words)
    HydraConfig.instance().set_config(config)  # resolvers of folders' names read it
    choices = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
    return prepare(verb, config, written_keys(parse(words)), choices)


def _compose(verb: str, overrides: list[str]) -> DictConfig:
    """Compose a configuration with the node ``hydra``."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose(verb, overrides=overrides, return_hydra_config=True)


def prepare(
    verb: str,
    config: DictConfig,
    written: set[str],
    choices: Mapping[str, str | None] | None = None,
) -> DictConfig:
    """Set the names of all choices and check the configuration (`mrisem.config.check`).

    Args:
        verb: key of the schema's `VERBS`.
        config: configuration composed by Hydra.
        written: keys and groups of the user's own overrides.
        choices: group -> chosen YAML; None: those of the running Hydra application.
    """
    if choices is None:
        choices = HydraConfig.get().runtime.choices
    with open_dict(config):
        for group, field in VERBS[verb].model_fields.items():
            is_choice = isinstance(field.annotation, type) and issubclass(field.annotation, Choice)
            # a YAML that sets no name goes by the name of its file
            if is_choice and choices.get(group) and not config[group].get("name"):
                config[group].name = Path(str(choices[group])).name
    return check(verb, config, written)


def written_keys(overrides: Iterable[Override]) -> set[str]:
    """Return the keys and groups that overrides name."""
    return {override.key_or_group for override in overrides}


def swept_keys(config: DictConfig) -> set[str]:
    """Return the keys that the overrides of a multirun, or its sweeper, vary.

    Args:
        config: Hydra's configuration at the start of the multirun.
    """
    swept = {
        o.get_key_element().lstrip("+")
        for o in parse(config.hydra.overrides.task)
        if o.is_sweep_override()
    }
    return swept | {str(key) for key in config.hydra.sweeper.get("params") or ()}


OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
OmegaConf.register_new_resolver("expand", expand, replace=True)
OmegaConf.register_new_resolver("target_of", target_of, replace=True)
Plugins.instance().register(InstalledConfigs)
store_defaults()
ConfigStore.instance().__deepcopy__ = _the_store  # type: ignore[attr-defined]
