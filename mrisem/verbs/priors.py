"""Construction of semantic priors and encoders from the configuration."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from mrisem.config.schema import NO_ARGUMENTS, Steering
from mrisem.tasks.callbacks.embedding_bank import EmbeddingBankCallback
from mrisem.tasks.network import NetworkTask, finish
from mrisem.types import Batch, Reconstruction
from mrisem.verbs.pieces import group_options

if TYPE_CHECKING:
    from mrisem.data.datamodules import FastMRI
    from mrisem.prior.generative.generator import Generator
    from mrisem.prior.image.encoder import Encoder
    from mrisem.prior.prior import PriorBuilder
    from mrisem.tasks.base import ReconstructionTask


class AsTrained:
    """Copy of a trained network, whose reconstructions are negatives of a bank.

    Args:
        task: task with the network, and the weight of its final data consistency.
    """

    def __init__(self, task: NetworkTask) -> None:
        # a copy: later fits change neither the images nor the fingerprint of the bank
        self.network = copy.deepcopy(task.network)
        self.final_lambda = task.final_lambda
        digest = hashlib.sha256(repr(self.final_lambda).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        self.fingerprint = digest.hexdigest()

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch on its device."""
        network = self.network.to(batch.masked_kspace.device)
        return finish(batch, network(batch), self.final_lambda)


def make_prior_builder(config: DictConfig) -> PriorBuilder:
    """Make the builder that ``config.prior._target_`` names, from its own options."""
    used = ("name", "n_auxiliary", "uses_auxiliary")
    options = group_options(config.prior, *Steering.names(), *used)
    # A prior's YAML with `encoder: ${encoder}` gets a function, so that a bank in the cache need
    # not load the encoder at once; one with `generator: ${generator}` gets one, too.
    if "encoder" in options:
        options["encoder"] = make_encoder(config)
    if "generator" in options:
        options["generator"] = make_generator(config)
    builder: PriorBuilder = instantiate(options)
    return builder


def make_encoder(config: DictConfig) -> Callable[..., Encoder]:
    """Return the function that makes the encoder named by ``config.encoder._target_``."""
    options = group_options(config.encoder, *NO_ARGUMENTS)
    make: Callable[..., Encoder] = instantiate(options, _partial_=True)
    return make


def make_generator(config: DictConfig) -> Callable[[], Generator]:
    """Return the function that makes what ``config.generator._target_`` names."""
    make: Callable[[], Generator] = instantiate(
        group_options(config.generator, "name"), _partial_=True
    )
    return make


class Priors:
    """Priors of a run: hashes of their banks, and the callback that gives them to the task.

    Args:
        config: checked configuration that names a prior.
        data: data set with the auxiliary images.
        task: task that is guided; its present network makes negatives that are reconstructions.
    """

    def __init__(self, config: DictConfig, data: FastMRI, task: ReconstructionTask) -> None:
        if data.auxiliary.negatives != "zero_filled" and isinstance(task, NetworkTask):
            data.reconstructor = AsTrained(task)
        self.builder, self.data = make_prior_builder(config), data

    def contents(self) -> dict[str, str]:
        """Return hashes of encoder and banks, for the record of the run."""
        # a builder of the user need not offer hashes: its options then count by themselves
        if not hasattr(self.builder, "contents"):
            return {}
        contents: dict[str, str] = self.builder.contents(self.data, torch.device("cpu"))
        return contents

    def callback(self) -> EmbeddingBankCallback:
        """Return the callback that gives the task its priors before the first fit."""
        return EmbeddingBankCallback(partial(self.builder, self.data))
