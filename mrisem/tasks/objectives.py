"""What is minimised: the terms at the image, and where training over a dataset takes them from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop
from mrisem.tasks.guidance import Guidance
from mrisem.tasks.losses import data_consistency_loss
from mrisem.tasks.regularisers import Regulariser
from mrisem.tasks.splits import split_samples
from mrisem.types import Batch

Terms = Callable[[Tensor], dict[str, Tensor]]


def gradient_at(
    image: Tensor,
    terms: Terms,
    regulariser: Regulariser | None,
    guidance: Guidance | None,
    iteration: int,
) -> tuple[dict[str, Tensor], Tensor]:
    """Evaluate everything that is minimised at an image, and its gradient there (Eq. 7).

    Fitting to one scan and training over a dataset share it, so that a regulariser or a prior means
    the same in both.

    Args:
        image: ``(batch, y, x)`` complex64.
        terms: image -> named ``(batch,)`` values of the data term, summed.
        regulariser: a conventional term, added to them.
        guidance: the semantic prior; a balance is reckoned from the gradient of all the others.
        iteration: of the fit, from 0.

    Returns:
        named ``(batch,)`` values, and the gradient of each slice's sum with respect to the image,
        ``(batch, y, x)`` complex64.
    """
    with torch.enable_grad():
        leaf = image.detach().requires_grad_()
        values = terms(leaf)
        if regulariser is not None:
            values[regulariser.name] = regulariser(leaf)
        (gradient,) = torch.autograd.grad(torch.stack([*values.values()]).sum(), leaf)
        values = {name: value.detach() for name, value in values.items()}
        if guidance is not None:
            semantic, push = guidance(image, gradient, iteration)
            values |= semantic
            gradient = gradient + push
    return values, gradient


class Objective(Protocol):
    """Where training over a dataset takes its terms from."""

    monitor: str  # name of the term that tells the best checkpoint

    def __call__(
        self, network: nn.Module, batch: Batch, epoch: int, seed: int
    ) -> tuple[Tensor, Terms]:
        """Reconstruct a batch: its image ``(batch, y, x)``, and the terms to judge it by."""
        ...


class Supervised:
    """L1 and fastMRI's SSIM loss against the target, on magnitudes in the batch's scale."""

    monitor = "ssim_loss"

    def __init__(self) -> None:
        from fastmri.losses import SSIMLoss

        self.ssim_loss = SSIMLoss()

    def __call__(
        self, network: nn.Module, batch: Batch, epoch: int, seed: int
    ) -> tuple[Tensor, Terms]:
        """Reconstruct from all samples.

        Raises:
            InputError: when the file has no target.
        """
        if batch.target is None:
            raise InputError(
                f"supervised training needs targets, {batch.info[0].file} has none; set "
                "objective=self_supervised"
            )
        target = (batch.target / batch.scale[:, None, None])[:, None]
        data_range = target.amax((1, 2, 3))

        def terms(image: Tensor) -> dict[str, Tensor]:
            magnitude = center_crop(image.abs(), batch.crop)[:, None]
            ssim = self.ssim_loss.to(image.device)(magnitude, target, data_range, reduced=False)
            return {
                "l1": (magnitude - target).abs().mean((1, 2, 3)),
                "ssim_loss": ssim.flatten(1).mean(1),
            }

        return network(batch).image, terms


class SelfSupervised:
    """k-space that the network did not see (Yaman et al., arXiv:1912.07669, with several masks).

    Args:
        loss_share: share of the samples held out for the loss.
        n_splits: random splits of each slice, taken in turn, one an epoch.
    """

    monitor = "data_consistency"

    def __init__(self, loss_share: float = 0.4, n_splits: int = 4) -> None:
        if n_splits < 1:
            raise InputError(f"objective.n_splits must be at least 1, got {n_splits}")
        self.loss_share = loss_share
        self.n_splits = n_splits

    def __call__(
        self, network: nn.Module, batch: Batch, epoch: int, seed: int
    ) -> tuple[Tensor, Terms]:
        """Reconstruct from one part of the samples; the terms look at the other."""
        purpose = f"split {epoch % self.n_splits}"
        mask_dc, mask_loss = split_samples(batch, batch.mask, self.loss_share, purpose, seed)

        def terms(image: Tensor) -> dict[str, Tensor]:
            return {"data_consistency": data_consistency_loss(batch, image, mask_loss)}

        return network(batch, mask_dc).image, terms
