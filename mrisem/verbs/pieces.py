"""The pieces that several verbs make from the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from mrisem.data.datamodules import FastMRI
from mrisem.data.readers.conversion import CONVERTED
from mrisem.errors import InputError
from mrisem.networks.starts import load_start
from mrisem.physics.masks import ColumnMask, paired
from mrisem.tasks.base import ReconstructionTask
from mrisem.tasks.network import NetworkTask


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
        index_folder=Path(config.paths.cache) / "index",
        conversion_folder=Path(config.paths.cache) / CONVERTED,
        on_error=config.get("on_error", "raise"),
        slices_at_once=slices_at_once,
        auxiliary=without(config.auxiliary),
    )


def has_prior(config: DictConfig) -> bool:
    """Whether a prior guides: ``prior=none`` names no builder."""
    return config.prior._target_ is not None


def make_mask(config: DictConfig) -> ColumnMask:
    """Make ``config.mask``; lists of options give a mask for each pair, drawn by volume."""
    options = without(config.mask, "name", "_target_")
    return paired(instantiate({"_target_": config.mask._target_, "_partial_": True}), options)


def make_task(config: DictConfig) -> ReconstructionTask:
    """Make the task of ``config.model`` with the weights that it starts from.

    Raises:
        InputError: when the method takes no prior but is given one, or its weights do not fit.
    """
    task = new_task(config)
    if has_prior(config) and not task.takes_prior:
        raise InputError(
            f"model={config.model.name} as it is takes no prior, got prior={config.prior.name}; "
            "set prior=none, or a network that is fitted, such as model=unrolled fit=all"
        )
    checkpoint = config.model.get("checkpoint")
    if checkpoint and isinstance(task, NetworkTask):
        load_start(task.network, Path(checkpoint), config.model.name)
    return task


def new_task(config: DictConfig) -> ReconstructionTask:
    """Make the task of ``config.model``; the same seed gives the same random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        task: ReconstructionTask = instantiate(config.model.task)
    return task
