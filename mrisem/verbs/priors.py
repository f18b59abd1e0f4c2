"""Semantic priors from the configuration: encoder, banks, loss."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from mrisem.data.auxiliary import Reconstructor
from mrisem.data.datamodules import FastMRI
from mrisem.prior.bank import EmbeddingBank, Encoder
from mrisem.prior.build import BankSettings, Pooled, load_or_build_bank
from mrisem.prior.contrastive import LOSSES
from mrisem.prior.encoders import load_encoder
from mrisem.prior.language import LanguagePrior
from mrisem.prior.language_model import load_language_model
from mrisem.prior.response_bank import LanguageBank, Perturbation, load_or_build_language_bank
from mrisem.prior.semantic import Jitter, SemanticPrior
from mrisem.tasks.base import ReconstructionTask
from mrisem.tasks.fitting import copies
from mrisem.tasks.guidance import Prior
from mrisem.tasks.network import NetworkTask, finish
from mrisem.types import Batch, InputError, Reconstruction
from mrisem.verbs.pieces import without

T = TypeVar("T")


class AsTrained:
    """A network as it was trained, for reconstructions among a bank's negatives.

    A copy: what is trained or fitted later changes neither images nor fingerprint.

    Args:
        task: its network, and its last data-consistency solve.
    """

    def __init__(self, task: NetworkTask) -> None:
        (self.network,) = copies(task.network, 1)
        self.final_lambda = task.final_lambda
        digest = hashlib.sha256(repr(self.final_lambda).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        self.fingerprint = digest.hexdigest()

    def __call__(self, batch: Batch) -> Reconstruction:
        """Reconstruct a batch on its device."""
        network = self.network.to(batch.masked_kspace.device)
        return finish(batch, network(batch), self.final_lambda)


def make_priors(
    config: DictConfig, data: FastMRI, task: ReconstructionTask
) -> Callable[[torch.device], dict[str, Prior]]:
    """Return what makes the priors of ``config.prior`` on a device: acquisition -> prior.

    Raises:
        InputError: when the language route, whose prompt names its images, is given negatives.
    """
    negatives = data.auxiliary.negatives
    if "center" in config.prior:
        if negatives != "zero_filled":
            raise InputError(
                f"prior={config.prior.name} takes its images from the prompt, got "
                f"auxiliary.negatives={negatives}; set auxiliary.negatives=zero_filled"
            )
        return lambda device: _language_priors(config, data, device)
    reconstructor = None
    if negatives != "zero_filled" and config.model.get("checkpoint"):
        reconstructor = AsTrained(task) if isinstance(task, NetworkTask) else None
    return lambda device: _image_priors(config, data, device, reconstructor)


def image_banks(
    config: DictConfig,
    data: FastMRI,
    device: torch.device,
    reconstructor: Reconstructor | None = None,
) -> tuple[Encoder, dict[str, tuple[EmbeddingBank, Path]]]:
    """Return the encoder, and for each acquisition its bank and the bank's file."""
    settings = BankSettings(
        components=[*config.prior.components],
        folder=_folder(config),
        dtype=choose("prior.bank_dtype", config.prior.bank_dtype, _DTYPES),
    )
    encoder = _load_encoder(config, device)
    banks = {
        acquisition: load_or_build_bank(
            encoder, data.auxiliary_slices(acquisition, reconstructor), settings, device
        )
        for acquisition in data.reconstructed_acquisitions
    }
    return encoder, banks


def language_banks(
    config: DictConfig, data: FastMRI, device: torch.device
) -> tuple[Any, Any, dict[str, tuple[LanguageBank, Path]]]:
    """Return the model, the prompt, and for each acquisition its bank and the bank's file."""
    options = config.prior
    encoder = load_language_model(
        config.encoder.path,
        dtype=options.dtype,
        revision=config.encoder.get("revision"),
        pad_value=config.encoder.get("pad_value"),
        gradient_checkpointing=options.gradient_checkpointing,
    ).to(device)
    prompt = instantiate(config.prompt)
    perturbation = Perturbation(
        options.n_perturbations, options.sigma, config.seed, options.batch_size
    )
    banks = {
        acquisition: load_or_build_language_bank(
            encoder,
            data.auxiliary_slices(acquisition),
            prompt,
            perturbation,
            _folder(config),
            device,
        )
        for acquisition in data.reconstructed_acquisitions
    }
    return encoder, prompt, banks


def _image_priors(
    config: DictConfig, data: FastMRI, device: torch.device, reconstructor: Reconstructor | None
) -> dict[str, Prior]:
    options = config.prior
    encoder, banks = image_banks(config, data, device, reconstructor)
    return {
        acquisition: SemanticPrior(
            encoder,
            bank.limit(options.n_positives, options.n_negatives).to(device),
            level_weights=[*options.level_weights],
            temperature=options.temperature,
            loss=choose("prior.loss", options.loss, LOSSES),
            jitter=_jitter(config),
        )
        for acquisition, (bank, _) in banks.items()
    }


def _language_priors(config: DictConfig, data: FastMRI, device: torch.device) -> dict[str, Prior]:
    options = config.prior
    encoder, prompt, banks = language_banks(config, data, device)
    return {
        acquisition: LanguagePrior(
            encoder,
            prompt,
            bank.to(device),
            temperature_positive=options.temperature_positive,
            temperature_negative=options.temperature_negative,
            center=options.center,
            images_at_once=options.images_at_once,
            jitter=_jitter(config),
            answer_every=options.log_answer_every,
        )
        for acquisition, (bank, _) in banks.items()
    }


def choose(key: str, value: str, choices: dict[str, T]) -> T:
    """Return the choice of that name.

    Raises:
        InputError: when there is none.
    """
    if value not in choices:
        raise InputError(f"{key} must be one of {', '.join(choices)}, got {value!r}")
    return choices[value]


# What an encoder's configuration says of the prior (conf/encoder, conf/prior), not of itself.
PRIOR_DEFAULTS = ("components", "level_weights", "balance", "jitter")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_COMPARISONS: dict[str, Callable[[Encoder], Encoder]] = {"token": lambda e: e, "pooled": Pooled}


def _load_encoder(config: DictConfig, device: torch.device) -> Encoder:
    chosen = without(config.encoder, "_target_", *PRIOR_DEFAULTS)
    options = chosen | {"levels": [*config.prior.levels]}
    compared = choose("prior.comparison", config.prior.comparison, _COMPARISONS)
    return compared(load_encoder(**options).to(device))


def _folder(config: DictConfig) -> Path:
    return Path(config.paths.cache) / "banks"


def _jitter(config: DictConfig) -> Jitter | None:
    options = config.prior.jitter
    return None if options is None else Jitter(**without(options))
