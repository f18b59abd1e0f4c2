"""`mrisem bank`: builds embedding banks, or describes those in the cache."""

from __future__ import annotations

import os

import torch
from omegaconf import DictConfig

from mrisem.errors import InputError
from mrisem.progress import progress
from mrisem.verbs.pieces import has_prior, make_datamodule
from mrisem.verbs.priors import make_prior_builder


def run(config: DictConfig) -> int:
    """Build or load the bank of each acquisition to be reconstructed, and describe it."""
    # one device is enough: of several tasks of srun or torchrun only the first one builds
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))):
        print("the first process of this start builds the bank")
        return 0
    if not has_prior(config):
        raise InputError("a bank belongs to a prior, got prior=none; set prior=image_same")
    builder = make_prior_builder(config)
    if not hasattr(builder, "describe"):
        raise InputError(
            f"the prior must have a bank, got prior={config.prior.name}; set prior=image_same"
        )
    data = make_datamodule(config, config.scale.fit.slices_at_once)
    data.setup("predict")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with progress("banks", len(data.reconstructed_acquisitions), "contrasts") as bar:
        for text in builder.describe(data, device):
            print(text)
            bar.advance()
    return 0
