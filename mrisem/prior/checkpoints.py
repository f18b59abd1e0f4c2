"""Checkpoint folders: where they are, and what their JSON files say."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mrisem
from mrisem.errors import InputError

SHIPPED = ("janus_mini",)
# ``(value - mean) / std`` maps [0, 1] to a network's input: mean and std, one entry a channel, or
# one for all of them.
Normalisation = tuple[float | Sequence[float], float | Sequence[float]]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "tokenizer.model"]
_HUB_TIMEOUT = 10.0  # seconds


def resolve_checkpoint(path: str, revision: str | None = None) -> Path:
    """Find the folder of a checkpoint.

    Args:
        path: ``janus_mini`` (ships with the package), a folder, or a hub name ``owner/name``, which
            is looked up in the local hub cache first and downloaded only when it is not there.
        revision: commit, tag or branch of a hub name (None: its main branch); a folder has none,
            and the value is not looked at.

    Raises:
        InputError: when there is no such folder, or no such hub name within reach.
    """
    if path in SHIPPED:
        return Path(mrisem.__file__).parent / "assets" / path
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if _HUB_ID.fullmatch(path):
        return _resolve_hub(path, revision)
    raise InputError(
        f"encoder.path must be an existing folder, a hub name owner/name or one of {SHIPPED}, "
        f"got {path!r}; check the spelling"
    )


def _resolve_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted: dict[str, Any] = {"revision": revision, "allow_patterns": _HUB_FILES}
    try:
        cached = Path(snapshot_download(name, local_files_only=True, **wanted))
        if any(cached.glob("*.safetensors")):  # a cache may hold a configuration alone
            return cached
    except LocalEntryNotFoundError:
        pass  # not cached: ask the hub
    try:
        # snapshot_download would ask without a time limit, and wait for ever on a dead network
        HfApi().repo_info(name, revision=revision, timeout=_HUB_TIMEOUT)
        return Path(snapshot_download(name, **wanted))
    except Exception as error:  # offline, unknown, gated: each of its own class and cause
        fetch = f"hf download {name}{f' --revision {revision}' if revision else ''} --local-dir DIR"
        raise InputError(
            f"encoder.path must be a folder or a hub name that is cached or can be fetched, got "
            f"{name!r} ({type(error).__name__}); where there is a network run `{fetch}`, bring DIR "
            "here and set encoder.path=DIR"
        ) from error


def read_model_type(folder: Path) -> str | None:
    """Read ``model_type`` of ``config.json``.

    Raises:
        InputError: when the file is missing, unreadable, or of DeepSeek's original Janus format,
            which transformers cannot load by itself.
    """
    model_type: str | None = read_json(folder / "config.json").get("model_type")
    if model_type == "multi_modality":
        raise InputError(
            f"encoder must be a converted Janus checkpoint (model_type 'janus'), got DeepSeek's "
            f"original format 'multi_modality' in {folder}; use deepseek-community/Janus-Pro-1B"
        )
    return model_type


def read_normalisation(folder: Path) -> Normalisation:
    """Read what a checkpoint's own image processor does; mean 0 and std 1 where it does nothing.

    Raises:
        InputError: when neither of the two files that may state it does.
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
    """Read a JSON file of a checkpoint, or raise an InputError."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"encoder folder must hold {file.name}, got none in {file.parent}; "
            "point encoder.path at a whole checkpoint"
        ) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file.name} must be JSON, got {file} ({error}); fetch it again"
        ) from error
