"""Loading of transformers models and of tensors from checkpoint folders.

Only JSON and safetensors files are read, no pickles: no code from a checkpoint runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mrisem.errors import InputError
from mrisem.prior.checkpoints import read_json

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def load_config(config_class: Any, folder: Path) -> Any:
    """Load the configuration of a model, or of its part such as the vision tower.

    Args:
        config_class: configuration class of transformers.
        folder: checkpoint.

    Raises:
        InputError: when transformers refuses a value.
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


def weight_files(folder: Path, stem: str = "model") -> list[Path]:
    """List the safetensors files of a checkpoint: a single one, or the shards in its index.

    Args:
        folder: checkpoint.
        stem: name of the file without extension.

    Raises:
        InputError: when there are no weights, only pickled weights, or a shard is missing.
    """
    files = [folder / f"{stem}.safetensors"]
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file() and not files[0].is_file():
        files = sorted({folder / name for name in read_json(index)["weight_map"].values()})
    # pickles are named in the message, and never opened: they could run any code
    if missing := [file.name for file in files if not file.is_file()]:
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
        held = f"only pickled weights {pickles[0]}" if pickles else f"no weights {missing[0]}"
        raise InputError(
            f"a checkpoint folder must hold whole safetensors weights, got {held} in {folder}; "
            "fetch the checkpoint again, or save it again with save_pretrained"
        )
    return files


def load_model(
    model_class: Any,
    folder: Path,
    config: Any,
    dtype: torch.dtype,
    names: dict[str, str],
    unused: tuple[str, ...] = (),
) -> Any:
    """Load a model by `from_pretrained`: safetensors only, without reports and network.

    Args:
        model_class: model class of transformers.
        folder: checkpoint; weights that the model does not have are not read.
        config: configuration of the model; the checkpoint's configuration may describe a larger
            model.
        dtype: dtype of the weights.
        names: regular expression on weight names of the checkpoint -> replacement.
        unused: parts of names of weights that may be missing.

    Raises:
        InputError: when weights are missing, damaged, pickled, or have other shapes.
    """
    weight_files(folder)  # raises with a better message than transformers does
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
            ignore_mismatched_sizes=True,  # the report lists them, and an InputError follows
            output_loading_info=True,
        )
    # transformers fills missing weights with random numbers, and only reports them
    missing = sorted(n for n in report["missing_keys"] if not any(part in n for part in unused))
    refuse_missing(missing, folder)
    for name, stored, expected in sorted(report["mismatched_keys"]):
        raise InputError(
            f"weights must have the shapes that config.json asks for, {name} {tuple(expected)}, "
            f"got {tuple(stored)} in {folder}; fetch the checkpoint again"
        )
    return model


def refuse_missing(missing: list[str], place: Path) -> None:
    """Raise InputError if weights are missing from a folder or file.

    Args:
        missing: names of missing weights.
        place: folder or file.
    """
    if missing:
        raise InputError(
            f"checkpoint must hold all weights of the model, got none for {missing[0]} and "
            f"{len(missing) - 1} others in {place}; fetch the checkpoint again"
        )


def read_tensors(file: Path, pattern: str) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file whose names contain a match of a pattern.

    Args:
        file: safetensors file.
        pattern: regular expression.

    Raises:
        InputError: when the file is damaged.
    """
    with _safetensors_errors(file), safe_open(file, framework="pt") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys() if re.search(pattern, name)}  # noqa: SIM118


@contextmanager
def _safetensors_errors(place: Path) -> Iterator[None]:
    """Turn errors of safetensors into InputError."""
    try:
        yield
    except SafetensorError as error:
        raise InputError(
            f"weights must be whole safetensors files, got {place} ({error}); fetch them again"
        ) from error


@contextmanager
def _silent_transformers() -> Iterator[None]:
    """Suppress loading reports and progress bars of transformers."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
