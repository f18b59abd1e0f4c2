"""Losses: their terms and gradients at images, and objectives of training over a dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from mrisem.errors import InputError
from mrisem.physics.fourier import center_crop
from mrisem.tasks.guidance import Guidance
from mrisem.tasks.regularisers import Regulariser
from mrisem.tasks.samples import data_consistency_loss, split_samples
from mrisem.types import Batch, Reconstruction

Terms = Callable[[Tensor], dict[str, Tensor]]

# Selections among the images z_1, x_1, ..., z_K, x_K; a network without stages has only the last.
_LOSS_ON = {"image": slice(-1, None), "stages": slice(None)}
_PRIOR_ON = {"image": slice(-1, None), "network": slice(-2, -1), "stages": slice(1, None, 2)}


@dataclass(frozen=True)
class Placement:
    """Images at which data loss and prior act.

    Stage k of an unrolled network has a network output ``z_k`` and, after data consistency, an
    image ``x_k``; the last one, ``x_K``, is the reconstruction. The released unrolled script (Feng
    et al., arXiv:2511.19641) corresponds to ``loss_on="stages"`` and ``prior_on="network"``, the
    language route to ``prior_on="stages"``.

    Args:
        loss_on: images of the data loss. ``image``: ``x_K``; ``stages``: ``z_1, x_1, ..., x_K``.
        prior_on: images of the prior. ``image``: ``x_K``; ``network``: ``z_K``; ``stages``: all
            ``x_k``.
    """

    loss_on: Literal["image", "stages"] = "image"
    prior_on: Literal["image", "network", "stages"] = "image"

    def images(self, result: Reconstruction) -> list[Tensor]:
        """List the images of a reconstruction, oldest first: ``z_1, x_1, ..., z_K, x_K``."""
        if not result.network_outputs and self != Placement():
            raise InputError(
                f"model.loss_on={self.loss_on} and model.prior_on={self.prior_on} need a network "
                "with stages, got one without; set both to image, or set model=unrolled"
            )
        # iterates begin with the zero-filled image
        stages = zip(result.network_outputs, result.iterates[1:], strict=False)
        return [*[image for stage in stages for image in stage][:-1], result.image]


def gradients_at(
    result: Reconstruction,
    terms: Terms,
    regulariser: Regulariser | None,
    guidance: Guidance | None,
    iteration: int,
    placement: Placement,
) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
    """Evaluate the loss ``L = L_dc + lambda L_sem`` and its gradients at images of a network.

    Feng et al., arXiv:2511.19641, Eq. 7. Each term is summed over the images that ``placement``
    names. Fits to a scan and training over a dataset both use this function, so that a regulariser
    or a prior acts alike in both.

    Args:
        result: output of the network.
        terms: function of an image ``(batch, y, x)`` complex64 that returns the data terms, name ->
            ``(batch,)``.
        regulariser: conventional term at the last image; None: no such term.
        guidance: semantic prior; its balance is relative to the gradient of all other terms. None:
            no prior.
        iteration: step of the fit, from 0.
        placement: images at which data term and prior act.

    Returns:
        name -> ``(batch,)`` value of each term at its last image; images of the network; and the
        gradient of the loss at each of them, to be backpropagated through the network.
    """
    images = placement.images(result)
    indices = range(len(images))
    gradients: dict[int, Tensor] = {}
    with torch.enable_grad(), torch.autocast(images[0].device.type, enabled=False):
        for index in indices[_LOSS_ON[placement.loss_on]]:
            # a leaf cuts the network off: the gradient is taken at the image
            leaf = images[index].detach().requires_grad_()
            values = terms(leaf)
            if regulariser is not None and index == indices[-1]:
                values[regulariser.name] = regulariser(leaf)
            (gradients[index],) = torch.autograd.grad(torch.stack([*values.values()]).sum(), leaf)
        values = {name: value.detach() for name, value in values.items()}
        if guidance is not None:
            # the gradient of the other terms, with which the prior's is balanced; zero where they
            # do not act
            guided = indices[_PRIOR_ON[placement.prior_on]]
            data_gradients = [
                gradients.get(index, torch.zeros_like(images[index])) for index in guided
            ]
            if placement.prior_on == "network":
                # the data term at x_K also acts on z_K, through the data-consistency solve
                data_gradients[0] = data_gradients[0] + _through_solve(
                    result, gradients[indices[-1]]
                )
            semantic, prior_gradients = guidance(
                [images[index] for index in guided], data_gradients, iteration
            )
            values |= semantic
            for index, prior_gradient in zip(guided, prior_gradients, strict=True):
                gradients[index] = (
                    gradients[index] + prior_gradient if index in gradients else prior_gradient
                )
    trained = [
        index for index in gradients if images[index].requires_grad
    ]  # not those of frozen stages
    return values, [images[index] for index in trained], [gradients[index] for index in trained]


def _through_solve(result: Reconstruction, gradient: Tensor) -> Tensor:
    """Backpropagate a gradient at the last image through its solve to the last network output.

    For earlier stages this would need another pass through the later networks, and is left out.
    """
    image, output = result.image, result.network_outputs[-1]
    return torch.autograd.grad(image, output, gradient, retain_graph=True)[0]


class Objective(Protocol):
    """Interface of the loss of training over a dataset."""

    monitor: str  # name of the term that selects the best checkpoint

    def __call__(
        self, network: nn.Module, batch: Batch, epoch: int, seed: int
    ) -> tuple[Reconstruction, Terms]:
        """Reconstruct a batch.

        Args:
            network: network that is trained.
            batch: measured slices.
            epoch: number of the epoch.
            seed: seed of the run.

        Returns:
            reconstruction, and the function that computes the loss terms of its images.
        """
        ...


class Supervised:
    """Supervised loss: L1 and fastMRI's SSIM loss of magnitudes, in the batch's scale."""

    monitor = "ssim_loss"

    def __init__(self) -> None:
        from fastmri.losses import SSIMLoss

        self.ssim_loss = SSIMLoss()

    def __call__(
        self, network: nn.Module, batch: Batch, epoch: int, seed: int
    ) -> tuple[Reconstruction, Terms]:
        """See `Objective`; the network has all samples.

        Raises:
            InputError: when the file has no target.
        """
        if batch.target is None:
            raise InputError(
                f"supervised training needs targets, {batch.info[0].file} has none; set "
                "objective=self_supervised"
            )
        target = (batch.target / batch.scale[:, None, None])[:, None]
        # SSIM's constants scale with the largest value of each target
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
    """Self-supervised loss on held-out k-space (Yaman et al., arXiv:1912.07669, several masks).

    Args:
        loss_share: share of the samples that is held out for the loss.
        n_splits: number of random splits of each slice, used in turn, one in each epoch.
    """

    monitor = "data_consistency"

    def __init__(self, loss_share: float = 0.4, n_splits: int = 4) -> None:
        if n_splits < 1:
            raise InputError(f"objective.n_splits must be at least 1, got {n_splits}; raise it")
        self.loss_share = loss_share
        self.n_splits = n_splits

    def __call__(
        self, network: nn.Module, batch: Batch, epoch: int, seed: int
    ) -> tuple[Reconstruction, Terms]:
        """See `Objective`; the network has one part of the samples, the loss the other."""
        purpose = f"split {epoch % self.n_splits}"
        mask_dc, mask_loss = split_samples(batch, batch.mask, self.loss_share, purpose, seed)

        def terms(image: Tensor) -> dict[str, Tensor]:
            return {"data_consistency": data_consistency_loss(batch, image, mask_loss)}

        return network(batch, mask_dc), terms
