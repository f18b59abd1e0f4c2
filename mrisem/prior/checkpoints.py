"""Checkpoint folders: where they are, and what their JSON files say."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrisem
from mrisem.errors import InputError

SHIPPED = ("janus_mini",)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "tokenizer.model"]
_HUB_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True)
class Normalisation:
    """How a checkpoint's own image processor maps [0, 1] to its input: ``(value - mean) / std``.

    Args:
        mean: one entry a channel, or one for all of them.
        std: one entry a channel, or one for all of them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def resolve_checkpoint(path: str, revision: str | None = None) -> Path:
    """Find the folder of a checkpoint.

    Args:
        path: ``janus_mini`` (ships with the package), a folder, or a hub name ``owner/name``, which
            is looked up in the local hub cache first and downloaded only when it is not there.
        revision: commit, tag or branch of a hub name; None is its main branch.

    Returns:
        an existing folder.

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


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` and refuse formats that transformers cannot load by itself.

    Args:
        folder: a checkpoint.

    Returns:
        the parsed file; it has the key ``model_type``.

    Raises:
        InputError: when the file is missing, unreadable, or of DeepSeek's original Janus format.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") == "multi_modality":
        raise InputError(
            f"encoder must be a converted Janus checkpoint (model_type 'janus'), got DeepSeek's "
            f"original format 'multi_modality' in {folder}; use deepseek-community/Janus-Pro-1B"
        )
    return config


def read_normalisation(folder: Path) -> Normalisation:
    """Read mean and std from ``preprocessor_config.json``, or from ``processor_config.json``.

    Args:
        folder: a checkpoint.

    Returns:
        the mean and std of its image processor; 0 and 1 when that does not normalise.

    Raises:
        InputError: when neither file states them.
    """
    sources: list[dict[str, Any]] = []
    if (folder / "preprocessor_config.json").is_file():
        sources.append(read_json(folder / "preprocessor_config.json"))
    if (folder / "processor_config.json").is_file():
        sources.append(read_json(folder / "processor_config.json").get("image_processor", {}))
    for source in sources:
        if source.get("do_normalize") is False:
            return Normalisation((0.0,), (1.0,))
        if "image_mean" in source and "image_std" in source:
            return Normalisation(_values(source["image_mean"]), _values(source["image_std"]))
    raise InputError(
        f"encoder folder must state image_mean and image_std in preprocessor_config.json or "
        f"processor_config.json, got neither in {folder}; save the model's processor there"
    )


def _values(stated: float | list[float]) -> tuple[float, ...]:
    return tuple(stated) if isinstance(stated, list) else (stated,)


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
