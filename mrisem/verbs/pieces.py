"""Parts that several verbs make from the configuration: data, mask, task."""

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
from mrisem.physics.draws import paired
from mrisem.physics.masks import ColumnMask
from mrisem.tasks.base import ReconstructionTask
from mrisem.tasks.network import NetworkTask


def group_options(config: DictConfig, *left_out: str) -> dict[str, Any]:
    """Return a group of the configuration, resolved, without some keys."""
    values = OmegaConf.to_container(config, resolve=True)
    return {key: value for key, value in dict(values).items() if key not in left_out}  # type: ignore[arg-type]


def make_datamodule(config: DictConfig, slices_at_once: int) -> FastMRI:
    """Make the DataModule of ``config.data`` with the mask of ``config.mask``."""
    # called directly: instantiate() would turn the mask, a dataclass, into a configuration
    make: type[FastMRI] = get_class(config.data._target_)
    return make(
        **group_options(config.data, "_target_", "name", "paper_subjects"),
        mask=make_mask(config),
        seed=config.seed,
        cache_folder=Path(config.paths.cache) / "sensitivity_maps",
        index_folder=Path(config.paths.cache) / "index",
        conversion_folder=Path(config.paths.cache) / CONVERTED,
        on_error=config.get("on_error", "raise"),
        slices_at_once=slices_at_once,
        auxiliary=group_options(config.auxiliary),
    )


def has_prior(config: DictConfig) -> bool:
    """Return whether the configuration names a prior."""
    # prior=none has no builder; its name may be another one in a YAML of the user
    return config.prior._target_ is not None


def has_encoder(config: DictConfig) -> bool:
    """Return whether the network has the encoder inside."""
    return OmegaConf.select(config, "model.task.network.encoder") is not None


def make_mask(config: DictConfig) -> ColumnMask:
    """Make ``config.mask``; of lists of options, each volume draws one combination."""
    options = group_options(config.mask, "name", "_target_")
    return paired(instantiate({"_target_": config.mask._target_, "_partial_": True}), options)


def make_task(config: DictConfig) -> ReconstructionTask:
    """Make the task of ``config.model`` with its starting weights.

    Raises:
        InputError: when a prior is set for a method that takes none, or the weights do not fit.
    """
    task = new_task(config)
    if has_prior(config) and not task.takes_prior:
        raise InputError(
            f"a prior guides only networks that are fitted, got prior={config.prior.name} with "
            f"model={config.model.name}; set prior=none, or such as model=unrolled fit=all"
        )
    checkpoint = config.model.get("checkpoint")
    if checkpoint and isinstance(task, NetworkTask):
        load_start(task.network, Path(checkpoint), config.model.name)
    return task


def new_task(config: DictConfig) -> ReconstructionTask:
    """Make the task of ``config.model``; the same seed gives the same random weights."""
    # layers draw from torch's global generator, which is restored afterwards
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        task: ReconstructionTask = instantiate(config.model.task)
    return task
