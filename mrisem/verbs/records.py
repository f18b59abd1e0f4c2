"""Record of a run, made from its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from mrisem.results.record import (
    BANK_KEYS,
    ENCODER_KEYS,
    IGNORED,
    PRIOR_KEYS,
    Record,
    hash_file,
    without_keys,
)
from mrisem.verbs.jobs import words
from mrisem.verbs.pieces import has_encoder, has_prior

if TYPE_CHECKING:
    from torch import nn


def make_record(config: DictConfig, contents: Mapping[str, str]) -> Record:
    """Make the record of a run.

    Args:
        config: checked configuration.
        contents: hashes of the files at configured paths.
    """
    settings: dict = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    is_guided = has_prior(config)
    factors = config.mask.get("acceleration") or []  # masks from files have none
    regulariser = config.get("regulariser", {}).get("name")
    network = "generator" if config.prior.get("generator") else "encoder"
    encodes = is_guided or has_encoder(config)
    path_keys = ("model.checkpoint", *((f"{network}.path", "encoder.adapter") if encodes else ()))
    # without a prior, its settings do not act: runs that differ in them are equal
    ignored = (*IGNORED, *(() if is_guided else PRIOR_KEYS))
    if network != "generator":
        ignored += ("generator",)
    if any(name.startswith("prior ") for name in contents):
        ignored += BANK_KEYS
    if "encoder" in contents:
        ignored += ENCODER_KEYS
    return Record(
        model=config.model.name,
        fit=config.fit.name if "fit" in config.model.task and "fit" in config else None,
        regulariser=None if regulariser == "none" else regulariser,
        prior=config.prior.name if is_guided else None,
        encoder=config[network].name if encodes else None,
        anatomy=config.data.name,
        mask=config.mask.name,
        acceleration=tuple(factors if isinstance(factors, ListConfig | list) else [factors]),
        seed=config.seed,
        settings=without_keys(settings, ignored),
        contents=dict(contents),
        places={k: str(v) for k in path_keys if (v := OmegaConf.select(config, k)) is not None},
        overrides=tuple(words()),
    )


def hash_weights(task: nn.Module) -> dict[str, str]:
    """Return hashes of a task's starting weights and of the encoder in its network, for a record.

    Either is left out where there is none.
    """
    weights = sorted(task.state_dict().items())
    fingerprint = getattr(getattr(task, "network", None), "encoder_fingerprint", None)
    contents = {} if fingerprint is None else {"encoder": bytes(fingerprint.tolist()).hex()[:24]}
    digest = hashlib.sha256()
    for name, value in weights:
        content = value.cpu().contiguous().flatten().view(torch.uint8)  # numpy has no bfloat16
        digest.update(name.encode() + content.numpy().tobytes())
    return contents | ({"weights": digest.hexdigest()[:24]} if weights else {})


def hash_companions(config: DictConfig) -> dict[str, str]:
    """Return hashes of the files of mask and sensitivity maps; empty: there are no such files.

    A folder of maps has the hash of its files' names and contents.
    """
    options = {"mask": config.mask.get("path"), "maps": config.data.get("sensitivity_maps")}
    contents = {}
    for name, option in options.items():
        path = Path(str(option))  # for maps also the name of an estimator, which is no file
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        # a missing file has no hash: it is refused when it is read
        digests = [(file.name, hash_file(file)) for file in files if file.is_file()]
        if option is not None and digests:
            digest = hashlib.sha256(repr(digests if path.is_dir() else digests[0][1]).encode())
            contents[name] = digest.hexdigest()[:24]
    return contents
