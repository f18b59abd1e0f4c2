"""Make the control of this question: the small Janus with random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, JanusForConditionalGeneration

import mrisem

SEED = 0


def prepare(folder: Path) -> None:
    """Write ``random/janus_mini``: the shipped checkpoint's files around new random weights."""
    shipped = Path(mrisem.__file__).parent / "assets" / "janus_mini"
    target = folder / "random" / "janus_mini"
    if (target / "model.safetensors").is_file():
        return
    shutil.copytree(shipped, target, dirs_exist_ok=True)
    (target / "model.safetensors").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = JanusForConditionalGeneration(AutoConfig.from_pretrained(shipped))
    model.save_pretrained(target)
