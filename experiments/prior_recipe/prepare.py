"""Train the first layer of janus_mini by every recipe of `recipes.yaml`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

HERE = Path(__file__).parent
RECIPE = HERE.parent / "pretrain_janus_mini"
MATERIAL = Path("outputs/pretrain_janus_mini")  # of `make pretrain`; made where it is missing


def prepare(folder: Path) -> None:
    """Write ``recipes/NAME`` for each: a checkpoint whose first layer alone is trained."""
    recipes = yaml.safe_load((HERE / "recipes.yaml").read_text(encoding="utf-8"))
    shipped = yaml.safe_load((RECIPE / "config.yaml").read_text(encoding="utf-8"))
    for name, changes in recipes.items():
        target = folder / "recipes" / name
        if not (target / "model.safetensors").is_file():
            print(f"== recipe {name}", flush=True)
            train(changed(shipped, changes), target)


def train(config: dict[str, Any], target: Path) -> None:
    """Train the local energy, write it into the first layer, export."""
    for number in config["rounds"]:
        if not (MATERIAL / "material" / f"round{number}").is_dir():
            make_material(number)
    sys.path.insert(0, str(RECIPE))
    from janus import export
    from train import Trainer

    torch.set_num_threads(config["threads"])
    target.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config, target, MATERIAL)
    export(trainer.model, trainer.processor, target)


def make_material(number: int) -> None:
    """Run ``material.sh`` for one round; round 2 under the encoder that ships."""
    here = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [str(RECIPE / "material.sh"), str(MATERIAL), str(number)]
    subprocess.run(command, env=os.environ | here | {"ENCODER": "janus_mini"}, check=True)


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Apply changes to a configuration and its parts.

    >>> changed({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}})
    {'a': 1, 'b': {'c': 4, 'd': 3}}
    """
    parts = {
        key: config[key] | value if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    return config | parts
