"""What is minimised: terms at images, and where training over a dataset takes them from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop
from mrisem.tasks.guidance import Guidance
from mrisem.tasks.losses import data_consistency_loss
from mrisem.tasks.placement import IMAGE, Placement
from mrisem.tasks.regularisers import Regulariser
from mrisem.tasks.splits import split_samples
from mrisem.types import Batch, Reconstruction

Terms = Callable[[Tensor], dict[str, Tensor]]


def gradients_at(
    results: Sequence[Reconstruction],
    terms: Terms,
    regulariser: Regulariser | None,
    guidance: Guidance | None,
    iteration: int,
    placement: Placement,
) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
    """Evaluate everything that is minimised at the images of networks, and its gradients there.

    ``L = L_dc + lambda L_sem`` (Feng et al., arXiv:2511.19641, Eq. 7), each summed over the images
    that ``placement`` names. Fitting to one scan and training over a dataset share it, so that a
    regulariser or a prior means the same in both.

    Args:
        results: what the networks gave; their slices together are the batch of the terms.
        terms: image ``(batch, y, x)`` complex64 -> named ``(batch,)`` values of the data term.
        regulariser: a conventional term, added to them at the last image.
        guidance: the semantic prior; a balance is reckoned from the gradient of all the others.
        iteration: step of the fit, from 0.
        placement: where data term and prior act.

    Returns:
        Named ``(batch,)`` values at the last image of each term; images of the networks, and the
        gradient of each slice's sum there, to be sent back by ``torch.autograd.backward``.
    """
    parts = [placement.images(result) for result in results]
    names = [*parts[0]]
    gradients: dict[str, Tensor] = {}
    with torch.enable_grad():
        for name in placement.data_names(names):
            leaf = _joined(parts, name).requires_grad_()
            values = terms(leaf)
            if regulariser is not None and name == IMAGE:
                values[regulariser.name] = regulariser(leaf)
            (gradients[name],) = torch.autograd.grad(torch.stack([*values.values()]).sum(), leaf)
        values = {name: value.detach() for name, value in values.items()}
        if guidance is not None:
            guided = placement.prior_names(names)
            images = [_joined(parts, name) for name in guided]
            against = [_data_gradient(parts, gradients, name) for name in guided]
            semantic, pushes = guidance(images, against, iteration)
            values |= semantic
            for name, push in zip(guided, pushes, strict=True):
                gradients[name] = gradients[name] + push if name in gradients else push
    return values, *_for_each_network(parts, gradients)


def _joined(parts: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    """One image of every network, as a detached batch."""
    return torch.cat([part[name].detach() for part in parts])


def _data_gradient(
    parts: Sequence[Mapping[str, Tensor]], gradients: Mapping[str, Tensor], name: str
) -> Tensor:
    """Gradient of the data term at an image, with what passes through that stage's solve.

    What reaches an image through the networks of later stages is left out: it would cost another
    pass through them. The last network output has none behind it, so its gradient is whole.
    """
    gradient = gradients[name] if name in gradients else torch.zeros_like(_joined(parts, name))
    if name in [*parts[0]][-2:-1]:
        through_solve = torch.autograd.grad(
            [part[IMAGE] for part in parts],
            [part[name] for part in parts],
            gradients[IMAGE].split([len(part[IMAGE]) for part in parts]),
            retain_graph=True,
        )
        gradient = gradient + torch.cat(through_solve)
    return gradient


def _for_each_network(
    parts: Sequence[Mapping[str, Tensor]], gradients: Mapping[str, Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Split the gradients at joined images again; images that nothing trainable made are left."""
    sizes = [len(part[IMAGE]) for part in parts]
    pairs = [
        (part[name], piece)
        for name, gradient in gradients.items()
        for part, piece in zip(parts, gradient.split(sizes), strict=True)
        if part[name].requires_grad
    ]
    return [image for image, _ in pairs], [piece for _, piece in pairs]


class Objective(Protocol):
    """Where training over a dataset takes its terms from."""

    monitor: str  # name of the term that tells the best checkpoint

    def __call__(
        self, network: nn.Module, batch: Batch, epoch: int, seed: int
    ) -> tuple[Reconstruction, Terms]:
        """Reconstruct a batch; return the terms to judge its images by, too."""
        ...


class Supervised:
    """L1 and fastMRI's SSIM loss against the target, on magnitudes in the batch's scale."""

    monitor = "ssim_loss"

    def __init__(self) -> None:
        from fastmri.losses import SSIMLoss

        self.ssim_loss = SSIMLoss()

    def __call__(
        self, network: nn.Module, batch: Batch, epoch: int, seed: int
    ) -> tuple[Reconstruction, Terms]:
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

        return network(batch), terms


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
    ) -> tuple[Reconstruction, Terms]:
        """Reconstruct from one part of the samples; the terms look at the other."""
        purpose = f"split {epoch % self.n_splits}"
        mask_dc, mask_loss = split_samples(batch, batch.mask, self.loss_share, purpose, seed)

        def terms(image: Tensor) -> dict[str, Tensor]:
            return {"data_consistency": data_consistency_loss(batch, image, mask_loss)}

        return network(batch, mask_dc), terms
