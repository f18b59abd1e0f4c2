"""How well the language loss tells wanted from unwanted responses that the bank does not hold."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mrisem.errors import InputError
from mrisem.prior.language.precision import full_float32
from mrisem.prior.language.prior import TEMPERATURES, response_loss


def held_out_losses(
    positives: Tensor,
    negatives: Tensor,
    center: bool,
    temperatures: tuple[float, float] = TEMPERATURES,
) -> tuple[Tensor, Tensor]:
    """Loss of every response against the bank of all the others (leave one out).

    In float64, so that a flat loss is not decided by rounding. The response left out is missing in
    the bank's mean, too.

    Args:
        positives: ``(p, width)`` response embeddings, one an image; p > 1.
        negatives: ``(q, width)``; q > 1.
        center: subtract the bank's mean, as in `LanguagePrior`.
        temperatures: tau_pos, tau_neg.

    Returns:
        losses of the positives, ``(p,)``, and of the negatives, ``(q,)``, float64.

    Raises:
        InputError: with fewer than two embeddings on a side.
    """
    _check(positives, negatives)
    p, n = positives.double(), negatives.double()
    options = center, temperatures
    return (
        torch.cat([_losses(p[i : i + 1], _but(p, i), n, *options) for i in range(len(p))]),
        torch.cat([_losses(n[j : j + 1], p, _but(n, j), *options) for j in range(len(n))]),
    )


def ranking_share(
    positives: Tensor,
    negatives: Tensor,
    center: bool,
    temperatures: tuple[float, float] = TEMPERATURES,
) -> float:
    """Share of (positive, negative) pairs whose positive has the smaller held-out loss.

    Leave one out (`docs/method.md`: 9 % released, 100 % centred). Mind that a positive is held
    against one positive less than a negative is, which alone shifts the loss by a factor of
    ``p / (p - 1)``: a flat loss is ranked by that, and falls *below* one half.
    `pair_ranking_share` has no such handicap.

    Args:
        positives: ``(p, width)`` response embeddings, one an image; p > 1.
        negatives: ``(q, width)``; q > 1.
        center: subtract the bank's mean, as in `LanguagePrior`.
        temperatures: tau_pos, tau_neg.

    Returns:
        share in [0, 1].

    Raises:
        InputError: with fewer than two embeddings on a side.
    """
    wanted, unwanted = held_out_losses(positives, negatives, center, temperatures)
    return float((wanted[:, None] < unwanted).double().mean())


def pair_ranking_share(
    positives: Tensor,
    negatives: Tensor,
    center: bool,
    temperatures: tuple[float, float] = TEMPERATURES,
) -> float:
    """Share of pairs whose positive has the smaller loss against the bank without that pair.

    Args:
        positives: ``(p, width)`` response embeddings, one an image; p > 1.
        negatives: ``(q, width)``; q > 1.
        center: subtract the bank's mean, as in `LanguagePrior`.
        temperatures: tau_pos, tau_neg.

    Returns:
        share in [0, 1].

    Raises:
        InputError: with fewer than two embeddings on a side.
    """
    _check(positives, negatives)
    p, n = positives.double(), negatives.double()
    right = 0
    for i in range(len(p)):
        for j in range(len(n)):
            pair = torch.stack([p[i], n[j]])
            losses = _losses(pair, _but(p, i), _but(n, j), center, temperatures)
            right += int(losses[0] < losses[1])
    return right / (len(p) * len(n))


def _losses(
    responses: Tensor,
    positives: Tensor,
    negatives: Tensor,
    center: bool,
    temperatures: tuple[float, float],
) -> Tensor:
    mean = torch.cat([positives, negatives]).mean(0) if center else torch.zeros_like(positives[0])
    with full_float32(responses.device.type):  # autocast would turn float64 products to bfloat16
        unit = normalize(responses - mean, dim=-1)
        sides = [unit @ normalize(side - mean, dim=-1).T for side in (positives, negatives)]
        return response_loss(sides[0], sides[1], temperatures)


def _but(side: Tensor, index: int) -> Tensor:
    return torch.cat([side[:index], side[index + 1 :]])


def _check(positives: Tensor, negatives: Tensor) -> None:
    if min(len(positives), len(negatives)) < 2:
        raise InputError(
            "ranking needs at least 2 embeddings on each side, got "
            f"{len(positives)} and {len(negatives)}"
        )
