"""The implicit neural representation as a task: fitted from scratch, in two stages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mrisem.networks.compiled import Mode, compile_network
from mrisem.networks.inr import INR
from mrisem.networks.stacked import stack
from mrisem.tasks.base import ReconstructionTask
from mrisem.tasks.curves import FitCurves
from mrisem.tasks.fitting import PerScanFit, ScanFit
from mrisem.tasks.guidance import Steering
from mrisem.tasks.regularisers import Regulariser
from mrisem.types import Batch, Reconstruction


@dataclass(frozen=True)
class Groups:
    """Adam's learning rates (Feng et al., arXiv:2511.19641, its INR backbone: 1e-4 and 1e-3)."""

    siren: float = 1e-4
    adaptor: float = 1e-3

    def __call__(self, network: nn.Module) -> list[dict]:
        """Return the parameter groups of what is trainable in an `INR`."""
        rates = {"siren": self.siren, "adaptor": self.adaptor}
        parts = [([*network.get_submodule(name).parameters()], rates[name]) for name in rates]
        return [{"params": part, "lr": rate} for part, rate in parts if part[0].requires_grad]


class INRTask(ReconstructionTask):
    """SIREN and adaptor with the data term and TV, then the adaptor alone with the prior.

    The network sees coordinates only, so the loss has all samples (``loss_share=None``).

    Args:
        network: its weights are every slice's start.
        first: settings of stage 1, both parts.
        second: settings of stage 2, SIREN frozen, where a prior counts.
        first_regulariser: regulariser of stage 1 (paper: 3 TV).
        final_lambda: weight of the last data-consistency solve (paper: 0.05).
        rates: learning rates.
        steering: how a prior counts.
        seed: seed of held-out samples, should a stage stop early.
        compile: mode of torch.compile; None: the network is run as it is.
    """

    takes_prior = True

    def __init__(
        self,
        network: INR,
        first: PerScanFit,
        second: PerScanFit,
        first_regulariser: Regulariser | None = None,
        final_lambda: float | None = 0.05,
        rates: Groups | None = None,
        steering: Steering | None = None,
        seed: int = 0,
        compile: Mode | None = None,
    ) -> None:
        super().__init__(steering)
        self.network = network
        self.first = first
        self.second = second
        self.first_regulariser = first_regulariser
        self.final_lambda = final_lambda
        self.rates = rates or Groups()
        self.seed = seed
        self.compile_mode = compile

    def solve(self, batch: Batch) -> tuple[Reconstruction, FitCurves]:
        """Fit both stages, then reconstruct."""
        network = stack(self.network, len(batch))
        if self.compile_mode is not None:
            compile_network(network, self.compile_mode)
        fit = ScanFit(network, batch, self.seed, self.guide(batch))
        with torch.enable_grad():
            fit.run(self.first, self.first_regulariser, guided=False, groups=self.rates)
            network.get_submodule("siren").requires_grad_(False)
            fit.run(self.second, groups=self.rates)
        return fit.finish(self.final_lambda)
