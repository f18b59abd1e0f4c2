"""How the sampled entries of k-space are split for self-supervision."""

from __future__ import annotations

import torch
from torch import Tensor

from mrisem.errors import InputError

_STD_FRACTION = 0.25  # standard deviation of the density in units of height and width


def split_mask(
    mask: Tensor,
    *,
    generator: torch.Generator,
    loss_share: float = 0.4,
    calibration_size: tuple[int, int] = (24, 24),
) -> tuple[Tensor, Tensor]:
    """Split the sampled entries into two disjoint sets: network input and loss.

    Of each slice, ``round(loss_share * n_sampled)`` entries are drawn point by point, without
    replacement and with Gaussian density around the centre of k-space, for the loss; the rest, and
    always the central ``calibration_size`` block, is the input. Source: method, Feng et al.,
    arXiv:2511.19641, section on backbones (unrolled: a Gaussian-weighted 40 % is held out).

    Weighted draws without replacement are the largest of ``log w + Gumbel noise``, so that a whole
    batch is split at once.

    Args:
        mask: ``(batch, y, x)`` bool.
        generator: source of randomness, on any device.
        loss_share: share of the sampled entries that goes to the loss, in (0, 1).
        calibration_size: ``(y, x)`` of the central block that stays in the input; all rows and the
            number of calibration lines keep those lines whole, as the paper does.

    Returns:
        ``(mask_dc, mask_loss)``, both ``(batch, y, x)`` bool; their union is ``mask``.

    Raises:
        InputError: when fewer sampled entries than asked for lie outside the calibration block.
    """
    if mask.ndim != 3 or mask.dtype != torch.bool:
        raise ValueError(f"mask must be (batch, y, x) bool, got {tuple(mask.shape)} {mask.dtype}")
    if not 0 < loss_share < 1:
        raise InputError(f"loss_share must lie between 0 and 1, got {loss_share}")
    log_weights = _log_gaussian(mask.shape[-2:]).to(mask.device)
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
    keys = torch.where(eligible, log_weights + gumbel, -torch.inf).flatten(1)
    order = keys.argsort(dim=1, descending=True)
    first = torch.arange(keys.shape[1], device=mask.device) < n_loss[:, None]
    mask_loss = torch.zeros_like(first).scatter(1, order, first).reshape(mask.shape)
    return mask & ~mask_loss, mask_loss


def _log_gaussian(size: torch.Size) -> Tensor:
    """``(y, x)`` exponent of a Gaussian around the centre of k-space."""
    row, column = ((torch.arange(n) - n // 2) / (_STD_FRACTION * n) for n in size)
    return -(row[:, None] ** 2 + column[None, :] ** 2) / 2


def _central_block(size: torch.Size, block: tuple[int, int]) -> Tensor:
    """``(y, x)`` bool, True in the central ``block``."""
    inside = [
        (torch.arange(n) >= n // 2 - w // 2) & (torch.arange(n) < n // 2 - w // 2 + w)
        for n, w in zip(size, block, strict=True)
    ]
    return inside[0][:, None] & inside[1][None, :]
