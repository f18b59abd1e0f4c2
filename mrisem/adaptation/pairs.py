"""Images beside their truth, and how damaged they are."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

KINDS = ("clean", "aliasing", "blur", "smooth", "noise", "ghost", "reconstruction")
HIGH, LOW = 0.015, 0.04  # relative error below which an image is high-, above which low-quality
NOISE_MARGIN = 1.5  # by which low-quality images surpass the noise of a complete scan
MOVED = 0.01  # relative error above which an image's error has a direction worth learning


@dataclass(frozen=True)
class Pairs:
    """Images, the truth that each should be, and what is wrong with them.

    Args:
        image: ``(n, y, x)`` float32 magnitude, as the encoder gets it.
        truth: ``(n, y, x)`` float32, the complete scan, scaled to fit the image best.
        ideal: ``(n, y, x)`` float32, the complete scan without its noise.
        kind: ``(n,)`` index into `KINDS`.
        contrast: ``(n,)`` index into `pool.CONTRASTS`.
        error: ``(n,)`` l2 error relative to the image.
        low: ``(n,)`` bool: low-quality, see `compare`.
    """

    image: Tensor
    truth: Tensor
    ideal: Tensor
    kind: Tensor
    contrast: Tensor
    error: Tensor
    low: Tensor

    def __len__(self) -> int:
        return len(self.image)


def join(parts: list[Pairs]) -> Pairs:
    """Pairs of one matrix size, one after the other."""
    return Pairs(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Pairs)))


def compare(image: Tensor, truth: Tensor, ideal: Tensor, kind: Tensor, contrast: Tensor) -> Pairs:
    """Measure the damage up to a factor: the encoder divides every image by its own maximum.

    Low-quality is what differs from the noise-free image by more than `LOW` and by more than
    `NOISE_MARGIN` times what the complete scan does: an image that merely lacks the scan's noise
    is not.
    """
    noise = NOISE_MARGIN * _distance(truth, ideal)
    low = _distance(image, ideal) > noise.clamp_min(LOW)
    error = _distance(image, truth)
    return Pairs(image, fit(truth, image), ideal, kind, contrast, error, low)


def fit(truth: Tensor, image: Tensor) -> Tensor:
    """Scale each truth to fit its image best."""
    factor = (image * truth).sum((-2, -1)) / truth.square().sum((-2, -1))
    return factor.view(-1, 1, 1) * truth


def _distance(image: Tensor, truth: Tensor) -> Tensor:
    """L2 difference up to a factor, relative to the image, ``(n,)``."""
    return (image - fit(truth, image)).norm(dim=(1, 2)) / image.norm(dim=(1, 2))
