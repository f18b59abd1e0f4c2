"""The pieces that several verbs make from the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from mrisem.data.datamodules import FastMRI
from mrisem.physics.masks import ColumnMask, MixedMask
from mrisem.errors import InputError


def without(config: DictConfig, *names: str) -> dict[str, Any]:
    """Return a config group as a dict, less the keys that are for people and other groups."""
    values = OmegaConf.to_container(config, resolve=True)
    return {key: value for key, value in dict(values).items() if key not in names}  # type: ignore[arg-type]


def make_datamodule(config: DictConfig, slices_at_once: int) -> FastMRI:
    """Make the DataModule of ``config.data`` with the mask of ``config.mask``."""
    # not through instantiate(): it would turn the mask, a dataclass, into a configuration
    make: type[FastMRI] = get_class(config.data._target_)
    return make(
        **without(config.data, "_target_", "name", "paper_subjects"),
        mask=make_mask(config),
        seed=config.seed,
        cache_folder=Path(config.paths.cache) / "sensitivity_maps",
        on_error=config.get("on_error", "raise"),
        slices_at_once=slices_at_once,
        auxiliary=without(config.auxiliary),
    )


def has_prior(config: DictConfig) -> bool:
    """Whether a prior guides: ``prior=none`` names no builder."""
    return config.prior._target_ is not None


def make_mask(config: DictConfig) -> ColumnMask:
    """Make ``config.mask``; a list of accelerations gives masks of each, drawn by volume."""
    options = without(config.mask, "name")
    factors = options.get("acceleration")
    if not isinstance(factors, list):
        mask: ColumnMask = instantiate(options)
        return mask
    if not factors:
        raise InputError("mask.acceleration must be a number or a list of numbers, got []")
    return MixedMask(tuple(instantiate(options | {"acceleration": r}) for r in factors))
