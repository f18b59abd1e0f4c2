"""The pieces that several verbs make from the configuration: data, mask, encoder, banks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from mrisem.data.auxiliary import AuxiliarySlices
from mrisem.data.datamodules import FastMRI
from mrisem.prior.bank import EmbeddingBank, Encoder
from mrisem.prior.build import Pooled
from mrisem.prior.contrastive import LOSSES
from mrisem.prior.encoders import load_encoder
from mrisem.prior.semantic import Jitter, SemanticPrior
from mrisem.tasks.callbacks.embedding_bank import BankSettings, EmbeddingBankCallback
from mrisem.types import InputError

T = TypeVar("T")


def without(config: DictConfig, *names: str) -> dict[str, Any]:
    """Return a config group as a dict, less the keys that are for people and other groups."""
    values = OmegaConf.to_container(config, resolve=True)
    return {key: value for key, value in dict(values).items() if key not in names}  # type: ignore[arg-type]


def make_datamodule(config: DictConfig, slices_at_once: int) -> FastMRI:
    """Make the DataModule of ``config.data`` with the mask of ``config.mask``."""
    # not through instantiate(): it would turn the mask, a dataclass, into a configuration
    make: type[FastMRI] = get_class(config.data._target_)
    return make(
        **without(config.data, "_target_", "name"),
        mask=instantiate(without(config.mask, "name")),
        seed=config.seed,
        cache_folder=Path(config.paths.cache) / "sensitivity_maps",
        on_error=config.get("on_error", "raise"),
        slices_at_once=slices_at_once,
        auxiliary=without(config.auxiliary) | {"contrast": config.prior.get("contrast", "same")},
    )


def encoder_loader(config: DictConfig) -> Callable[[torch.device | str], Encoder]:
    """Return what loads the encoder onto a device, with the levels that the prior asks for."""
    options = without(config.encoder, "_target_", "components") | {"levels": [*config.prior.levels]}
    comparisons: dict[str, Callable[[Encoder], Encoder]] = {"token": lambda e: e, "pooled": Pooled}
    compared = choose("prior.comparison", config.prior.comparison, comparisons)
    return lambda device: compared(load_encoder(**options).to(device))


def bank_settings(config: DictConfig) -> BankSettings:
    """Return how banks are made and where they are kept."""
    return BankSettings(
        components=[*config.prior.components],
        folder=Path(config.paths.cache) / "banks",
        dtype=getattr(torch, config.prior.bank_dtype),
    )


def make_bank_callback(config: DictConfig, data: FastMRI) -> EmbeddingBankCallback:
    """Return the callback that gives a task the prior of ``config.prior``."""
    auxiliary: dict[str, AuxiliarySlices] = {
        acquisition: data.auxiliary_slices(acquisition)
        for acquisition in data.reconstructed_acquisitions
    }
    return EmbeddingBankCallback(
        encoder_loader(config), auxiliary, bank_settings(config), prior_maker(config)
    )


def prior_maker(config: DictConfig) -> Callable[[Encoder, EmbeddingBank], SemanticPrior]:
    """Return what makes a prior of encoder and bank, with the options of ``config.prior``."""
    options = config.prior
    loss = choose("prior.loss", options.loss, LOSSES)
    jitter = None if options.jitter is None else Jitter(**without(options.jitter))

    def make(encoder: Encoder, bank: EmbeddingBank) -> SemanticPrior:
        return SemanticPrior(
            encoder,
            bank.limit(options.n_positives, options.n_negatives),
            level_weights=[*options.level_weights],
            temperature=options.temperature,
            loss=loss,
            jitter=jitter,
            seed=config.seed,
        )

    return make


def choose(key: str, value: str, choices: dict[str, T]) -> T:
    """Return the choice of that name.

    Raises:
        InputError: when there is none.
    """
    if value not in choices:
        raise InputError(f"{key} must be one of {', '.join(choices)}, got {value!r}")
    return choices[value]
