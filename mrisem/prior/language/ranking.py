"""How well the language loss tells wanted from unwanted responses that the bank does not hold."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mrisem.errors import InputError
from mrisem.prior.contrastive import info_nce
from mrisem.prior.language.precision import full_float32
from mrisem.prior.language.prior import TEMPERATURES


def ranking_shares(positives: Tensor, negatives: Tensor, center: bool) -> tuple[float, float]:
    """Shares of (positive, negative) pairs whose positive has the smaller held-out loss.

    In float64, so that a flat loss is not decided by rounding. What is left out is missing in the
    bank's mean, too (`docs/method.md`: 9 % released, 100 % centred, one left out).

    Args:
        positives: ``(p, width)`` response embeddings, one an image; p > 1.
        negatives: ``(q, width)``; q > 1.
        center: subtract the bank's mean, as in `LanguagePrior`.

    Returns:
        two shares in [0, 1]. The first leaves out the response alone: a positive is held against
        one positive less than a negative is, which by itself shifts the loss by a factor of
        ``p / (p - 1)``, so that a flat loss falls *below* one half. The second leaves out both
        responses of the pair and has no such handicap.

    Raises:
        InputError: with fewer than two embeddings on a side.
    """
    if min(len(positives), len(negatives)) < 2:
        raise InputError(
            "ranking needs at least 2 embeddings on each side, got "
            f"{len(positives)} and {len(negatives)}"
        )
    p, n = positives.double(), negatives.double()
    wanted = torch.cat([_losses(p[i, None], _but(p, i), n, center) for i in range(len(p))])
    unwanted = torch.cat([_losses(n[j, None], p, _but(n, j), center) for j in range(len(n))])
    right = 0
    for i, j in product(range(len(p)), range(len(n))):
        pair = torch.stack([p[i], n[j]])
        first, second = _losses(pair, _but(p, i), _but(n, j), center)
        right += int(first < second)
    alone = float((wanted[:, None] < unwanted).double().mean())
    return alone, right / (len(p) * len(n))


def _losses(responses: Tensor, positives: Tensor, negatives: Tensor, center: bool) -> Tensor:
    mean = torch.cat([positives, negatives]).mean(0) if center else torch.zeros_like(positives[0])
    with full_float32(responses.device.type):  # autocast would turn float64 products to bfloat16
        unit = normalize(responses - mean, dim=-1)
        sides = [unit @ normalize(side - mean, dim=-1).T for side in (positives, negatives)]
        return info_nce(sides[0], sides[1], TEMPERATURES)


def _but(side: Tensor, index: int) -> Tensor:
    return torch.cat([side[:index], side[index + 1 :]])
