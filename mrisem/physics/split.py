"""Split of the sampled entries of k-space into network input and loss, for self-supervision."""

from __future__ import annotations

import torch
from torch import Tensor

from mrisem.errors import InputError

_STD_FRACTION = 0.25  # standard deviation of the density, in units of height and width


def split_mask(
    mask: Tensor,
    *,
    generator: torch.Generator,
    loss_share: float = 0.4,
    calibration_size: tuple[int, int] = (24, 24),
) -> tuple[Tensor, Tensor]:
    """Split the sampled entries into two disjoint sets: network input and loss.

    In each slice ``round(loss_share * n_sampled)`` entries are drawn for the loss: point by point,
    without replacement, with Gaussian density around the centre of k-space. All others are the
    input, among them the whole central block of ``calibration_size``. Source: Feng et al.,
    arXiv:2511.19641, section on backbones (unrolled: a Gaussian-weighted 40 % is held out).

    Args:
        mask: ``(batch, y, x)`` bool, True where sampled.
        generator: source of randomness, on any device.
        loss_share: share of the sampled entries that goes to the loss, in (0, 1).
        calibration_size: ``(y, x)`` of the central block that stays in the input. All rows times
            the number of calibration lines keeps these lines whole, as the paper does.

    Returns:
        ``(mask_dc, mask_loss)``, both ``(batch, y, x)`` bool; their union is ``mask``.

    Raises:
        InputError: when the loss asks for more entries than are sampled outside the block.
    """
    if mask.ndim != 3 or mask.dtype != torch.bool:
        raise ValueError(f"mask must be (batch, y, x) bool, got {tuple(mask.shape)} {mask.dtype}")
    if not 0 < loss_share < 1:
        raise InputError(f"loss_share must lie between 0 and 1, got {loss_share}; set 0.4")
    log_weights = _log_gaussian(mask.shape[-2:]).to(mask.device)
    # The n largest of log(w) + Gumbel noise are n draws without replacement with weights w: the
    # whole batch is drawn by one sort (Gumbel-top-k; Efraimidis & Spirakis 2006).
    uniform = torch.rand(mask.shape, generator=generator, device=generator.device).to(mask.device)
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
    eligible = mask & ~_central_block(mask.shape[-2:], calibration_size).to(mask.device)
    n_loss = (loss_share * mask.sum(dim=(1, 2))).round().long()
    if bool((n_loss > eligible.sum(dim=(1, 2))).any()):
        raise InputError(
            f"loss_share={loss_share} asks for {n_loss.tolist()} entries outside the calibration "
            f"block {calibration_size}, only {eligible.sum(dim=(1, 2)).tolist()} are sampled "
            "there; lower loss_share, or keep a smaller block (fit.calibration=block)"
        )
    scores = torch.where(eligible, log_weights + gumbel, -torch.inf).flatten(1)
    order = scores.argsort(dim=1, descending=True)
    is_drawn = torch.arange(scores.shape[1], device=mask.device) < n_loss[:, None]
    mask_loss = torch.zeros_like(is_drawn).scatter(1, order, is_drawn).reshape(mask.shape)
    return mask & ~mask_loss, mask_loss


def _log_gaussian(size: torch.Size) -> Tensor:
    """Logarithm ``(y, x)`` of a Gaussian density around the centre of k-space, 0 at its maximum."""
    row, column = ((torch.arange(n) - n // 2) / (_STD_FRACTION * n) for n in size)
    return -(row[:, None] ** 2 + column[None, :] ** 2) / 2


def _central_block(size: torch.Size, block: tuple[int, int]) -> Tensor:
    """Mask ``(y, x)`` bool that is True in the central ``block``."""
    inside = [
        (torch.arange(n) >= n // 2 - width // 2) & (torch.arange(n) < n // 2 - width // 2 + width)
        for n, width in zip(size, block, strict=True)
    ]
    return inside[0][:, None] & inside[1][None, :]
