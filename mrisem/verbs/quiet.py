"""What libraries warn of that says nothing about the user's data or options."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

NOISE = (
    # torch.compile looks at weights that are made of one matrix for all slices
    "The .grad attribute of a Tensor that is not a leaf",
    ".*treespec, LeafSpec.*",
    ".*does not have many workers.*",
    "Experiment logs directory .*",
    # of a scan that failed: it is listed at the end
    "`training_step` returned `None`",
    # where SLURM is installed; one process needs no srun, and submitit calls it itself
    "The `srun` command is available on your system",
    # a run that is resumed finds its own checkpoints
    "Checkpoint directory .* exists and is not empty",
)
"""Beginnings of warnings, as patterns."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's remarks and `NOISE` inside the block, and nothing after it."""
    lightning = logging.getLogger("pytorch_lightning")
    level = lightning.level
    lightning.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in NOISE:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        lightning.setLevel(level)
