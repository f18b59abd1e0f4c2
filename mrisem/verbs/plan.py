"""Needs and cost of a run, for `mrisem doctor`: starting weights, encoder, data and size."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from mrisem.config.effects import missing_start
from mrisem.errors import InputError
from mrisem.tasks.estimate import Cost, encoder_cost, network_cost
from mrisem.tasks.network import NetworkTask
from mrisem.verbs.pieces import has_encoder, has_prior, make_datamodule, make_task, new_task
from mrisem.verbs.priors import make_encoder, make_generator

_SUSTAINED = 10e12  # assumed arithmetic rate of one GPU in float32, FLOP/s
# k-space (coil, y, x), target (Y, X) and number of slices of a fastMRI knee: used without data
_KNEE = (15, 640, 368), (320, 320), 36


class Plan:
    """Plan of a configured run; each method makes one part and returns a text on it."""

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.encoder: Any = None
        self.sizes = _KNEE

    def start(self) -> str:
        """Return the starting weights of the fit."""
        if message := missing_start(OmegaConf.to_container(self.config)):  # type: ignore[arg-type]
            raise InputError(message)
        make_task(self.config)  # raises if the weights cannot be read
        return self.config.model.get("checkpoint") or "none: random weights, or nothing to train"

    def find_encoder(self) -> str:
        """Return levels, tokens and widths of the encoder, or the name of the generator."""
        if self.config.prior.get("generator"):
            make_generator(self.config)()
            return f"{self.config.generator.name}, a generator: it uses no bank and no encoder"
        encoder = self.encoder = make_encoder(self.config)()
        is_used = has_prior(self.config) or has_encoder(self.config)
        use = "" if is_used else " (not used: prior=none)"
        return (
            f"{self.config.encoder.name}: levels {[*encoder.levels]}, {encoder.n_tokens} tokens of "
            f"width {', '.join(map(str, encoder.widths))}{use}"
        )

    def data(self) -> str:
        """Return numbers of files, subjects and slices, of the scans and of the bank."""
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
        with_bank = has_prior(config) and config.prior.get("uses_auxiliary", True)
        for acquisition in data.reconstructed_acquisitions if with_bank else ():
            slices = data.auxiliary_slices(acquisition, config.prior.get("contrast", "same"))
            n, n_wanted = len(slices.describe()["subjects"]), config.auxiliary.n_subjects
            shortage = f" of {n_wanted} wanted" if n < n_wanted else ""
            lines.append(f"bank for {acquisition}: {n} subjects{shortage}, {len(slices)} slices")
        return "\n".join(lines)

    def estimate(self) -> str:
        """Return operations, hours and memory of the fits, extrapolated from a step of a slice."""
        task, fit = new_task(self.config), self.config.fit
        if not isinstance(task, NetworkTask) or task.fit is None:
            return f"none for {self.config.model.name}: only fits of networks are counted"
        (n_coils, y, x), crop, n_slices = self.sizes
        shape = n_coils, crop[0] if self.config.data.readout == "target" else y, x
        guided = has_prior(self.config) and isinstance(self.encoder, torch.nn.Module)
        prior = encoder_cost(self.encoder, crop) if guided else Cost(0, 0, 0)
        cost = network_cost(task.network, shape, crop) + prior
        hours = cost.flops * fit.iterations * n_slices / _SUSTAINED / 3600
        at_once = self.config.scale.fit.slices_at_once
        return (
            f"{cost.flops / 1e12:.2g} TFLOP a step and slice ({' x '.join(map(str, shape))}, "
            f"target {crop[0]} x {crop[1]}, {'with' if guided else 'without'} the prior), "
            f"{fit.iterations} steps, {n_slices} slices: {hours:.1f} hours on a GPU that sustains "
            f"{_SUSTAINED / 1e12:g} TFLOP/s (assumed); "
            f"{(cost.weights + cost.saved) * at_once / 1e9:.1f} GB for {at_once} slices at once"
        )
