"""The record of a run from its configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf

from mrisem.results.record import IGNORED, IN_A_BANK, OF_A_PRIOR, Record, hash_file, without
from mrisem.verbs.jobs import words
from mrisem.verbs.pieces import has_prior

if TYPE_CHECKING:
    from torch import nn


def make_record(config: DictConfig, contents: Mapping[str, str]) -> Record:
    """Make the record of a run.

    Args:
        config: composed and checked.
        contents: hashes of what lies at configured paths.
    """
    settings: dict = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    guided = has_prior(config)
    factors = config.mask.get("acceleration") or []  # none: as the file's mask
    regulariser = config.get("regulariser", {}).get("name")
    of_encoder = ("encoder.path", "encoder.adapter")
    places = ("model.checkpoint", *(of_encoder if guided else ()))
    ignored = (*IGNORED, *(() if guided else OF_A_PRIOR))
    if any(name.startswith("prior ") for name in contents):
        ignored += IN_A_BANK
    return Record(
        model=config.model.name,
        fit=config.fit.name if "fit" in config.model.task and "fit" in config else None,
        regulariser=None if regulariser == "none" else regulariser,
        prior=config.prior.name if guided else None,
        encoder=config.encoder.name if guided else None,
        anatomy=config.data.name,
        mask=config.mask.name,
        acceleration=tuple(factors if isinstance(factors, ListConfig | list) else [factors]),
        seed=config.seed,
        settings=without(settings, ignored),
        contents=dict(contents),
        places={k: str(v) for k in places if (v := OmegaConf.select(config, k)) is not None},
        overrides=tuple(words()),
    )


def hash_weights(module: nn.Module) -> dict[str, str]:
    """Return the hash of the weights that a fit starts from, as part of a record's contents.

    Nothing where there are none.
    """
    weights = sorted(module.state_dict().items())
    digest = hashlib.sha256()
    for name, value in weights:
        content = value.cpu().contiguous().flatten().view(torch.uint8)  # numpy has no bfloat16
        digest.update(name.encode() + content.numpy().tobytes())
    return {"weights": digest.hexdigest()[:24]} if weights else {}


def hash_companions(config: DictConfig) -> dict[str, str]:
    """Return hashes of the mask and of the sensitivity maps that lie in files of their own.

    A folder of maps has the hash of its files' names and contents. A path without a file has none:
    it is refused where the file is read.
    """
    places = {"mask": config.mask.get("path"), "maps": config.data.get("sensitivity_maps")}
    contents = {}
    for name, place in places.items():
        path = Path(str(place))
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        digests = [(file.name, hash_file(file)) for file in files if file.is_file()]
        if place is not None and digests:
            digest = hashlib.sha256(repr(digests if path.is_dir() else digests[0][1]).encode())
            contents[name] = digest.hexdigest()[:24]
    return contents
