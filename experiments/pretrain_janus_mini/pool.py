"""Clean simulated slices, made once and kept in a cache file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from mrisem.adaptation import pool
from mrisem.anatomy import brain


def load_pool(entries: dict[str, Any], seed: int, folder: Path) -> dict[str, pool.Pool]:
    """Make the clean slices, or load them when the same ones were made before.

    Args:
        entries: the configuration's ``pool``.
        seed: shifts the subjects.
        folder: where the cache file lies.

    Returns:
        ``train`` and ``held_out``.
    """
    digest = hashlib.sha256(json.dumps([entries, seed], sort_keys=True).encode())
    for source in (*sorted(Path(brain.__file__).parent.glob("*.py")), Path(pool.__file__)):
        digest.update(source.read_bytes())
    file = folder / f"pool-{digest.hexdigest()[:12]}.pt"
    if not file.is_file():
        made = {side: pool.simulate(entries, side, seed) for side in pool.FIRST_SEED}
        partial = file.with_suffix(".part")
        torch.save(made, partial)
        partial.replace(file)
    return torch.load(file, weights_only=True)
