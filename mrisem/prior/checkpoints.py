"""Checkpoint folders: finding them, and reading their JSON files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mrisem
from mrisem.errors import InputError

SHIPPED = ("janus_mini", "diffusion_mini")
# Mean and std of ``(value - mean) / std``, which maps [0, 1] to a network's input; each has one
# number for all channels, or one for each.
Normalisation = tuple[float | Sequence[float], float | Sequence[float]]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "tokenizer.model"]
_HUB_TIMEOUT = 10.0  # seconds


def resolve_checkpoint(path: str, revision: str | None = None, group: str = "encoder") -> Path:
    """Find the folder of a checkpoint.

    Args:
        path: one of `SHIPPED` (part of the package), a folder, or a hub name ``owner/name``. A hub
            name is looked up in the local hub cache, and downloaded only if it is not there.
        revision: commit, tag or branch of a hub name; None: its main branch. A folder has no
            revision, and the value is not used.
        group: name of the options, for messages: ``encoder`` or ``generator``.

    Raises:
        InputError: when the folder does not exist, or the hub name cannot be fetched.
    """
    if path in SHIPPED:
        return Path(mrisem.__file__).parent / "assets" / path
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if _HUB_ID.fullmatch(path):
        return _resolve_hub(path, revision, group)
    raise InputError(
        f"{group}.path must be an existing folder, a hub name owner/name or one of {SHIPPED}, "
        f"got {path!r}; correct the spelling"
    )


def _resolve_hub(name: str, revision: str | None, group: str) -> Path:
    """Find a hub name in the local hub cache, or download it."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    request: dict[str, Any] = {"revision": revision, "allow_patterns": _HUB_FILES}
    try:
        cached = Path(snapshot_download(name, local_files_only=True, **request))
        if any(cached.rglob("*.safetensors")):  # a cache may hold a configuration alone
            return cached
    except LocalEntryNotFoundError:
        pass  # not cached: ask the hub
    try:
        # snapshot_download has no time limit and would wait for ever on a dead network: ask first
        HfApi().repo_info(name, revision=revision, timeout=_HUB_TIMEOUT)
        return Path(snapshot_download(name, **request))
    except Exception as error:  # offline, unknown or gated names raise different classes
        fetch = f"hf download {name}{f' --revision {revision}' if revision else ''} --local-dir DIR"
        raise InputError(
            f"{group}.path must be a folder or a hub name that is cached or can be fetched, got "
            f"{name!r} ({type(error).__name__}); run `{fetch}` on a machine with a network, copy "
            f"DIR here and set {group}.path=DIR"
        ) from error


def read_model_type(folder: Path) -> str | None:
    """Read ``model_type`` from the ``config.json`` of a checkpoint.

    Raises:
        InputError: when the file is missing or not JSON, or has DeepSeek's original Janus format,
            which transformers cannot load without DeepSeek's code.
    """
    model_type: str | None = read_json(folder / "config.json").get("model_type")
    if model_type == "multi_modality":
        raise InputError(
            f"encoder must be a converted Janus checkpoint (model_type 'janus'), got DeepSeek's "
            f"original format 'multi_modality' in {folder}; use deepseek-community/Janus-Pro-1B"
        )
    return model_type


def read_normalisation(folder: Path) -> Normalisation:
    """Read the normalisation of a checkpoint's image processor; mean 0 and std 1 if it has none.

    Raises:
        InputError: when neither ``preprocessor_config.json`` nor ``processor_config.json`` states
            it.
    """
    for file in (folder / "preprocessor_config.json", folder / "processor_config.json"):
        content = read_json(file) if file.is_file() else {}
        stated = content.get("image_processor", content)
        if stated.get("do_normalize") is False:
            return 0.0, 1.0
        if "image_mean" in stated and "image_std" in stated:
            return stated["image_mean"], stated["image_std"]
    raise InputError(
        f"encoder folder must state image_mean and image_std in preprocessor_config.json or "
        f"processor_config.json, got neither in {folder}; save the model's processor there"
    )


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file of a checkpoint.

    Raises:
        InputError: when the file is missing or not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"a checkpoint folder must hold {file.name}, got none in {file.parent}; "
            "give the path of a whole checkpoint"
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file.name} must be JSON, got {file} ({error}); fetch it again"
        ) from error
