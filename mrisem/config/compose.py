"""Composing a verb's configuration: search path of YAML files, names of choices and of jobs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

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
from mrisem.config.schema import VERBS, Choice, expand, store_defaults

SWEPT = "MRISEM_SWEPT"  # names the swept keys in the jobs' processes, which inherit it
_UNNAMED = (
    *("output_dir", "data.root", "data.max_slices", "auxiliary.root", "model.checkpoint"),
    *("scale", "paths.cache"),
)
_LONGEST = 200  # characters of a folder's name: file systems take 255


class InstalledConfigs(SearchPathPlugin):
    """Lets Hydra find the YAML files that installed packages bring (`choices.PLUGINS`)."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append each package."""
        for name, package in installed():
            search_path.append(provider=name, path=f"pkg://{package}")


def _the_store(memo: dict[int, object]) -> ConfigStore:
    """Stand in for ``deepcopy`` of Hydra's store of defaults, of which there is one.

    Hydra copies its sources, the store in one of them, each time that it lists the choices of a
    group: for ``--help`` that was a second. What it loads from the store it copies anyway.
    """
    return ConfigStore.instance()


def folder_name(overrides: Iterable[str]) -> str:
    """Return a sweep job's overrides as the name of one folder: no slash, at most 200 characters.

    Places and sizes are left out unless they are swept (the environment variable `SWEPT`).

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
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name[: _LONGEST - len(digest) - 1]}-{digest}"


def compose(verb: str, overrides: Iterable[str] = ()) -> DictConfig:
    """Compose and check a verb's configuration, as the command line does.

    Raises:
        InputError: an option is unknown, out of range, or cannot act.
    """
    words = quote_paths([*overrides], multirun=False)
    try:
        if adds(words):  # Hydra would take any option behind a plus
            raise ConfigCompositionException
        config = _compose(verb, words)
    except ConfigCompositionException:
        words = repair(verb, words, CONF, ())
        config = _compose(verb, words)
    HydraConfig.instance().set_config(config)
    choices = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
    return prepare(verb, config, written_keys(parse(words)), choices)


def _compose(verb: str, overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra_compose(verb, overrides=overrides, return_hydra_config=True)


def prepare(
    verb: str,
    config: DictConfig,
    written: set[str],
    choices: Mapping[str, str | None] | None = None,
) -> DictConfig:
    """Name every choice and check the configuration (`mrisem.config.check`).

    Args:
        verb: key of the schema's `VERBS`.
        config: composed by Hydra.
        written: keys and groups of the user's own overrides.
        choices: group -> chosen YAML; None: those of the running Hydra application.
    """
    if choices is None:
        choices = HydraConfig.get().runtime.choices
    with open_dict(config):
        for group, field in VERBS[verb].model_fields.items():
            named = isinstance(field.annotation, type) and issubclass(field.annotation, Choice)
            if named and choices.get(group) and not config[group].get("name"):
                config[group].name = Path(str(choices[group])).name
    return check(verb, config, written)


def written_keys(overrides: Iterable[Override]) -> set[str]:
    """Return the keys and groups that overrides name."""
    return {override.key_or_group for override in overrides}


def swept_keys(config: DictConfig) -> set[str]:
    """Return the keys that a multirun's words or its sweeper vary.

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
Plugins.instance().register(InstalledConfigs)
store_defaults()
ConfigStore.instance().__deepcopy__ = _the_store  # type: ignore[attr-defined]
