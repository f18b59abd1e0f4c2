"""What the model is trained to say of an image: in words, and pixel by pixel."""

from __future__ import annotations

from gradient import MOVED
from janus import Window
from pairs import ARTEFACTS, Pairs, by_artefact, dense_target, residual_target
from questions import IGNORE
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy, smooth_l1_loss


def word_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the answers and their ends; 0 when no image had one."""
    if (labels == IGNORE).all():
        return 0 * logits.sum()
    return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE)


def dense_loss(dense: Tensor, pairs: Pairs, window: Window, patch: int, grid: int) -> Tensor:
    """Distance of ``(n, token, artefact)`` to the size of the local errors."""
    target = by_artefact(dense_target(pairs.local, grid * patch, patch), pairs.kind)
    return len(ARTEFACTS) * smooth_l1_loss(dense.float(), window.cut(target, grid))


def residual_loss(residual: Tensor, pairs: Pairs, window: Window, patch: int, grid: int) -> Tensor:
    """One minus the cosine with the signed error, however slight it is, and the distance to it."""
    target = window.cut(residual_target(pairs, grid * patch, patch), grid).flatten(1)
    found = residual.float().flatten(1)
    turned = (1 - cosine_similarity(found, target))[pairs.error > MOVED].sum() / len(pairs)
    return turned + smooth_l1_loss(found, target)
