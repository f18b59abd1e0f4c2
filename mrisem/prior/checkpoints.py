"""Checkpoint folders: where they are, what they say of themselves, and their safetensors.

Nothing here runs code from a checkpoint: JSON and safetensors only, never pickles.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mrisem
from mrisem.errors import InputError

SHIPPED = ("janus_mini",)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "tokenizer.model"]
_HUB_TIMEOUT = 10.0  # seconds
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_INDEX = "model.safetensors.index.json"


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


def load_config(config_class: Any, folder: Path) -> Any:
    """Load the configuration of a model, or of a part such as the vision tower of a whole.

    Args:
        config_class: class of transformers.
        folder: a checkpoint.

    Raises:
        InputError: when a value is not what the class takes.
    """
    from huggingface_hub.errors import StrictDataclassError

    try:
        with _silent_transformers():
            return config_class.from_pretrained(folder, local_files_only=True)
    except (StrictDataclassError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"config.json must describe a model of transformers, got {folder} ({reason}); fetch it "
            "again"
        ) from error


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


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files of a checkpoint: one, or the shards that its index names.

    Args:
        folder: a checkpoint.

    Returns:
        existing files.

    Raises:
        InputError: when there are no weights, only pickled ones, or a shard is missing.
    """
    single, index = folder / "model.safetensors", folder / _INDEX
    if single.is_file():
        return [single]
    if index.is_file():
        files = sorted({folder / name for name in read_json(index)["weight_map"].values()})
        if missing := [file.name for file in files if not file.is_file()]:
            raise InputError(
                f"every shard named in {_INDEX} must exist, got no {missing[0]} in {folder}; "
                "fetch the checkpoint again"
            )
        return files
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
    held = f"only pickled weights {pickles[0]}" if pickles else "no weights"
    fix = "save them again with save_pretrained" if pickles else "fetch the checkpoint again"
    raise InputError(
        f"encoder folder must hold model.safetensors or {_INDEX}, got {held} in {folder}; {fix}"
    )


def load_model(
    model_class: Any,
    folder: Path,
    config: Any,
    dtype: torch.dtype,
    names: dict[str, str],
    unused: tuple[str, ...] = (),
) -> Any:
    """Load a model by its class's `from_pretrained`: safetensors only, no reports, no network.

    Args:
        model_class: class of transformers.
        folder: a checkpoint; weights that the model lacks are not read.
        config: configuration of the model; the checkpoint's own may be that of a larger one.
        dtype: dtype of the weights.
        names: regular expressions on weight names of the checkpoint -> what replaces them.
        unused: parts of the names of weights that may be missing.

    Returns:
        the model in evaluation mode, on the CPU.

    Raises:
        InputError: when weights are missing, damaged, pickled, or of other shapes.
    """
    weight_files(folder)
    with _safetensors_errors(folder), _silent_transformers():
        model, report = model_class.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            key_mapping=names,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are in the report
            output_loading_info=True,
        )
    missing = sorted(n for n in report["missing_keys"] if not any(part in n for part in unused))
    refuse_missing(missing, folder)
    for name, stored, expected in sorted(report["mismatched_keys"]):
        raise InputError(
            f"weights must have the shapes that config.json asks for, {name} {tuple(expected)}, "
            f"got {tuple(stored)} in {folder}; fetch the checkpoint again"
        )
    return model


def refuse_missing(missing: list[str], place: Path) -> None:
    """Raise an InputError where weights are missing from a folder or file."""
    if missing:
        raise InputError(
            f"checkpoint must hold all weights of the model, got none for {missing[0]} and "
            f"{len(missing) - 1} others in {place}; fetch the checkpoint again"
        )


def read_tensors(file: Path, pattern: str) -> dict[str, Tensor]:
    """Read those tensors of a safetensors file whose names match a pattern.

    Args:
        file: an existing safetensors file.
        pattern: regular expression that is searched for in the names.

    Returns:
        name -> tensor, in its stored dtype.

    Raises:
        InputError: when the file is damaged.
    """
    from safetensors import safe_open

    with _safetensors_errors(file), safe_open(file, framework="pt") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys() if re.search(pattern, name)}  # noqa: SIM118


@contextmanager
def _safetensors_errors(place: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise InputError(
            f"weights must be whole safetensors files, got {place} ({error}); fetch them again"
        ) from error


@contextmanager
def _silent_transformers() -> Iterator[None]:
    """Keep transformers' loading reports and progress bars away from stdout and stderr."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    if bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


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
