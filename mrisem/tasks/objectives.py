"""What is minimised: terms at images, and where training over a dataset takes them from."""

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

# Which of the images z_1, x_1, ..., z_K, x_K; of the last one alone in a network without stages.
_LOSS_ON = {"image": slice(-1, None), "stages": slice(None)}
_PRIOR_ON = {"image": slice(-1, None), "network": slice(-2, -1), "stages": slice(1, None, 2)}


@dataclass(frozen=True)
class Placement:
    """Where data loss and prior act.

    A stage k of an unrolled network has a network output ``z_k`` and, after data consistency, an
    image ``x_k``; the last ``x_K`` is the reconstruction. The paper's unrolled script (Feng et al.,
    arXiv:2511.19641) takes ``loss_on="stages"`` and ``prior_on="network"``, its language route
    ``prior_on="stages"``.

    Args:
        loss_on: images of the data loss: ``image``, or ``stages``: ``z_1, x_1, ..., x_K``.
        prior_on: images of the prior: ``image``, ``network``: ``z_K``, or ``stages``: all ``x_k``.
    """

    loss_on: Literal["image", "stages"] = "image"
    prior_on: Literal["image", "network", "stages"] = "image"

    def images(self, result: Reconstruction) -> list[Tensor]:
        """Order the images that a network gives, oldest first: ``z_1, x_1, ..., z_K, x_K``."""
        if not result.network_outputs and self != Placement():
            raise InputError(
                f"model.loss_on={self.loss_on} and model.prior_on={self.prior_on} need a network "
                "with stages, this one gives its image alone; set both to image, or model=unrolled"
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
    """Evaluate everything that is minimised at the images of networks, and its gradients there.

    ``L = L_dc + lambda L_sem`` (Feng et al., arXiv:2511.19641, Eq. 7), each summed over the images
    that ``placement`` names. Fitting to one scan and training over a dataset share it, so that a
    regulariser or a prior means the same in both.

    Args:
        result: what the network gave.
        terms: image ``(batch, y, x)`` complex64 -> named ``(batch,)`` values of the data term.
        regulariser: a conventional term, added to them at the last image.
        guidance: the semantic prior; a balance is reckoned from the gradient of all the others.
        iteration: step of the fit, from 0.
        placement: where data term and prior act.

    Returns:
        Named ``(batch,)`` values at the last image of each term; images of the network, and the
        gradient of each slice's sum there, to be sent back by ``torch.autograd.backward``.
    """
    images = placement.images(result)
    places = range(len(images))
    gradients: dict[int, Tensor] = {}
    with torch.enable_grad(), torch.autocast(images[0].device.type, enabled=False):
        for k in places[_LOSS_ON[placement.loss_on]]:
            leaf = images[k].detach().requires_grad_()
            values = terms(leaf)
            if regulariser is not None and k == places[-1]:
                values[regulariser.name] = regulariser(leaf)
            (gradients[k],) = torch.autograd.grad(torch.stack([*values.values()]).sum(), leaf)
        values = {name: value.detach() for name, value in values.items()}
        if guidance is not None:
            guided = places[_PRIOR_ON[placement.prior_on]]
            against = [gradients.get(k, torch.zeros_like(images[k])) for k in guided]
            if placement.prior_on == "network":
                against[0] = against[0] + _through_solve(result, gradients[places[-1]])
            semantic, pushes = guidance([images[k] for k in guided], against, iteration)
            values |= semantic
            for k, push in zip(guided, pushes, strict=True):
                gradients[k] = gradients[k] + push if k in gradients else push
    trained = [k for k in gradients if images[k].requires_grad]  # not those of frozen stages
    return values, [images[k] for k in trained], [gradients[k] for k in trained]


def _through_solve(result: Reconstruction, gradient: Tensor) -> Tensor:
    """Gradient at the last network output of what acts on the last image, behind its solve.

    For earlier stages it is left out: it would cost another pass through the later networks.
    """
    image, output = result.image, result.network_outputs[-1]
    return torch.autograd.grad(image, output, gradient, retain_graph=True)[0]


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
        """Reconstruct from all samples; an `InputError` where the file has no target."""
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
