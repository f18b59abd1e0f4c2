"""Silencing of warnings of libraries that do not concern the user's data or options."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

NOISE = (
    # torch.compile inspects weights that are views of one matrix for all slices
    "The .grad attribute of a Tensor that is not a leaf",
    ".*treespec, LeafSpec.*",
    ".*does not have many workers.*",
    "Experiment logs directory .*",
    # after a failed scan, which is listed at the end
    "`training_step` returned `None`",
    # a single process needs no srun, and submitit calls it itself
    "The `srun` command is available on your system",
    # a continued training has its own checkpoints there
    "Checkpoint directory .* exists and is not empty",
)
"""Patterns of the beginnings of warnings."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning's remarks and `NOISE` inside the block only."""
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
