"""`mrisem doctor`: what is installed, which weights and data are found, what would run."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from omegaconf import DictConfig

import mrisem
from mrisem.prior.checkpoints import read_config, resolve_checkpoint
from mrisem.errors import InputError

_NEEDED = (
    "torch",
    "torchvision",
    "pytorch-lightning",
    "hydra-core",
    "transformers",
    "peft",
    "wandb",
    "fastmri",
    "torchmetrics",
    "sigpy",
    "piq",
)
_OPTIONAL = {"nilearn": "mrisem simulate; pip install 'mrisem[demo]'"}


def run(config: DictConfig) -> int:
    """Print the findings; a named encoder or data root that is missing ends with exit code 1."""
    print(f"mrisem {mrisem.__version__}, Python {platform.python_version()}, {platform.system()}")
    missing = _packages()
    print(f"device      {_device()}, {torch.get_num_threads()} CPU threads")
    cache = Path(config.paths.cache)
    banks = len(list((cache / "banks").glob("*.safetensors")))
    print(f"cache       {cache} ({banks} banks)")
    missing += _check(
        "encoder", lambda: _encoder(config.encoder.path, config.encoder.get("revision"))
    )
    if config.data.root is not None:
        missing += _check("data", lambda: _data(Path(config.data.root)))
    else:
        print("data        none named (data.root=DIR); `mrisem simulate` makes some")
    if missing:
        raise InputError(f"missing: {', '.join(missing)}; what is said above names the fix")
    print("all that was asked for is here")
    return 0


def _packages() -> list[str]:
    """Print versions; return what is needed and absent."""
    missing = []
    for name in _NEEDED:
        found = _version(name)
        print(f"package     {name} {found or 'MISSING: run make setup'}")
        missing += [] if found else [f"package {name}"]
    for name, use in _OPTIONAL.items():
        print(f"package     {name} {_version(name) or f'not installed (for {use})'}")
    return missing


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}"
    return "CPU (no CUDA GPU found)"


def _encoder(path: str, revision: str | None) -> str:
    folder = resolve_checkpoint(path, revision)
    return f"{path}: {read_config(folder).get('model_type')} checkpoint in {folder}"


def _data(root: Path) -> str:
    if not root.is_dir():
        raise InputError(f"data.root must be a folder with multicoil_val and so on, got {root}")
    counts = {
        folder.name: len(list(folder.glob("*.h5"))) for folder in sorted(root.glob("multicoil_*"))
    }
    if not sum(counts.values()):
        raise InputError(f"data.root must hold multicoil_{{train,val,test}}/*.h5, got {root}")
    return f"{root}: " + ", ".join(f"{n} files in {name}" for name, n in counts.items())


def _check(title: str, find: Callable[[], str]) -> list[str]:
    """Print what a finder says, or why it fails; return the failure."""
    try:
        print(f"{title:<11} {find()}")
    except InputError as error:
        print(f"{title:<11} MISSING: {error}")
        return [title]
    return []
