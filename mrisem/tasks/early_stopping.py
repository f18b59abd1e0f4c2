"""Early stopping of per-scan fits, each slice on its own."""

from __future__ import annotations

from torch import Tensor, nn


class Best:
    """The weights of each slice's network that predict its validation samples best.

    A slice is done after ``patience`` updates without improvement.
    """

    def __init__(self, networks: nn.ModuleList, patience: int) -> None:
        self.networks = networks
        self.patience = patience
        self.losses = [float("inf")] * len(networks)
        self.waited = [0] * len(networks)
        self.weights: list[dict[str, Tensor]] = [{} for _ in networks]

    def update(self, losses: Tensor) -> None:
        """Keep the weights of the slices whose loss, of ``(batch,)``, is the lowest yet."""
        for index, loss in enumerate(losses.tolist()):
            if self.waited[index] >= self.patience:
                continue
            self.waited[index] += 1
            if loss < self.losses[index]:
                trained = self.networks[index].named_parameters()
                kept = {n: p.detach().clone() for n, p in trained if p.requires_grad}
                self.losses[index], self.waited[index] = loss, 0
                self.weights[index] = kept

    @property
    def all_done(self) -> bool:
        """Whether every slice has waited long enough."""
        return all(waited >= self.patience for waited in self.waited)

    def restore(self) -> None:
        """Put the best weights back."""
        for network, weights in zip(self.networks, self.weights, strict=True):
            network.load_state_dict(weights, strict=False)
