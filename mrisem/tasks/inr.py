"""Task of the implicit neural representation (INR), fitted from scratch in two stages."""

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
    """Learning rates of Adam for an INR (Feng et al., arXiv:2511.19641: 1e-4 and 1e-3).

    Args:
        siren: learning rate of the SIREN.
        adaptor: learning rate of the convolutional adaptor.
    """

    siren: float = 1e-4
    adaptor: float = 1e-3

    def __call__(self, network: nn.Module) -> list[dict]:
        """Return the parameter groups of an `INR`; a frozen part has none."""
        rates = {"siren": self.siren, "adaptor": self.adaptor}
        parts = [([*network.get_submodule(name).parameters()], rates[name]) for name in rates]
        return [{"params": part, "lr": rate} for part, rate in parts if part[0].requires_grad]


class INRTask(ReconstructionTask):
    """Two-stage fit of an INR (Feng et al., arXiv:2511.19641).

    Stage 1 fits SIREN and adaptor with the data term and TV. Stage 2 fits the adaptor alone, with
    the data term and the prior. The network's input is coordinates only, so the loss has all
    samples (``loss_share=None``).

    Args:
        network: network with the weights from which every slice starts.
        first: settings of stage 1.
        second: settings of stage 2, in which a prior acts.
        first_regulariser: regulariser of stage 1 (paper: 3 TV); None: no such term.
        final_lambda: weight mu of a last data-consistency solve (paper: 0.05); None: no solve.
        rates: learning rates; None: those of `Groups`.
        steering: settings of the prior's influence.
        seed: seed of the samples that are held out for early stopping.
        compile: mode of torch.compile; None: the network is not compiled.
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
            # stage 2: the SIREN is frozen, and its output is computed once
            network.get_submodule("siren").requires_grad_(False)
            fit.run(self.second, groups=self.rates)
        return fit.finish(self.final_lambda)
