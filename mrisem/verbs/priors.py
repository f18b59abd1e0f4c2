"""Semantic priors from the configuration."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from mrisem.config.schema import Steering
from mrisem.tasks.callbacks.embedding_bank import EmbeddingBankCallback
from mrisem.tasks.network import NetworkTask, finish
from mrisem.types import Batch, Reconstruction
from mrisem.verbs.pieces import without

if TYPE_CHECKING:
    from mrisem.data.datamodules import FastMRI
    from mrisem.prior.generative.generator import Generator
    from mrisem.prior.image.encoder import Encoder
    from mrisem.prior.prior import PriorBuilder
    from mrisem.tasks.base import ReconstructionTask


class AsTrained:
    """A network as it was trained, for reconstructions among a bank's negatives.

    A copy: what is trained or fitted later changes neither images nor fingerprint.

    Args:
        task: its network, and its last data-consistency solve.
    """

    def __init__(self, task: NetworkTask) -> None:
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
    """Make what ``config.prior._target_`` names from the options that are its own.

    ``encoder: ${encoder}`` in a prior's YAML gives it a function that makes the encoder;
    ``generator: ${generator}`` one that makes the generator.
    """
    options = without(config.prior, *Steering.names(), "name", "n_auxiliary", "uses_auxiliary")
    if "encoder" in options:
        options["encoder"] = make_encoder(config)
    if "generator" in options:
        options["generator"] = make_generator(config)
    builder: PriorBuilder = instantiate(options)
    return builder


def make_encoder(config: DictConfig) -> Callable[..., Encoder]:
    """Return the function that makes what ``config.encoder._target_`` names."""
    options = without(config.encoder, "name", "prior_defaults")
    make: Callable[..., Encoder] = instantiate(options, _partial_=True)
    return make


def make_generator(config: DictConfig) -> Callable[[], Generator]:
    """Return the function that makes what ``config.generator._target_`` names."""
    make: Callable[[], Generator] = instantiate(without(config.generator, "name"), _partial_=True)
    return make


class Priors:
    """The priors of a run: what they are made of, and the callback that gives them to the task.

    Args:
        config: composed and checked; it names a prior.
        data: gives the auxiliary images.
        task: what is guided; a network among a bank's negatives is this one as it is now.
    """

    def __init__(self, config: DictConfig, data: FastMRI, task: ReconstructionTask) -> None:
        if data.auxiliary.negatives != "zero_filled" and isinstance(task, NetworkTask):
            data.reconstructor = AsTrained(task)
        self.builder, self.data = make_prior_builder(config), data

    def contents(self) -> dict[str, str]:
        """Return hashes of encoder and bank for the run's record; none of a builder without."""
        if not hasattr(self.builder, "contents"):
            return {}
        contents: dict[str, str] = self.builder.contents(self.data, torch.device("cpu"))
        return contents

    def callback(self) -> EmbeddingBankCallback:
        """Return the callback that gives a task its priors before anything is fitted."""
        return EmbeddingBankCallback(partial(self.builder, self.data))
