"""Images beside their truth, what is wrong with them and where, and the targets made of it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad, unfold

KINDS = ("clean", "aliasing", "blur", "smooth", "noise", "ghost", "reconstruction")
ARTEFACTS = ((1,), (2, 3), (4,), (5,), (6,))  # kinds that share a channel of the dense target
HIGH, LOW = 0.015, 0.04  # relative error below which an image is high-, above which low-quality
NOISE_MARGIN = 1.5  # by which low-quality images surpass the noise of a complete scan
ERROR_UNIT = 0.02  # of the image's maximum: the local error whose dense target is log 2


@dataclass(frozen=True)
class Pairs:
    """Images, the truth that each should be, what is wrong with them, and where.

    Args:
        image: ``(n, y, x)`` float32 magnitude, as the encoder gets it.
        truth: ``(n, y, x)`` float32, the complete scan, scaled to fit the image best.
        ideal: ``(n, y, x)`` float32, the complete scan without its noise.
        kind: ``(n,)`` index into `KINDS`.
        error: ``(n,)`` l2 error relative to the image.
        low: ``(n,)`` bool: low-quality, see `compare`.
        local: ``(n, y, x)`` error magnitude relative to the image's maximum.
        contrast: ``(n,)`` index into `pool.CONTRASTS`.
        lesion: ``(n,)``: 1 yes, 0 no, -1 unknown.
    """

    image: Tensor
    truth: Tensor
    ideal: Tensor
    kind: Tensor
    error: Tensor
    low: Tensor
    local: Tensor
    contrast: Tensor
    lesion: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def choose(self, index: Tensor) -> Pairs:
        """Pairs ``index``."""
        return Pairs(*(getattr(self, f.name)[index] for f in fields(self)))


def join(parts: list[Pairs]) -> Pairs:
    """Pairs of one matrix size, one after the other."""
    return Pairs(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Pairs)))


def compare(
    image: Tensor, truth: Tensor, ideal: Tensor, kind: Tensor, contrast: Tensor, lesion: Tensor
) -> Pairs:
    """Measure the damage up to a factor: the encoder divides every image by its own maximum.

    Low-quality is what differs from the noise-free image by more than `LOW` and by more than
    `NOISE_MARGIN` times what the complete scan does: an image that merely lacks the scan's noise
    is not.
    """
    truth = _fit(truth, image)
    difference = (image - truth).abs()
    error = difference.flatten(1).norm(dim=1) / image.flatten(1).norm(dim=1)
    noise = NOISE_MARGIN * _distance(truth, ideal)
    low = _distance(image, ideal) > noise.clamp_min(LOW)
    local = difference / image.amax((-2, -1), keepdim=True)
    return Pairs(image, truth, ideal, kind, error, low, local, contrast, lesion)


def _fit(truth: Tensor, image: Tensor) -> Tensor:
    """Scale each truth to fit its image best."""
    factor = (image * truth).sum((-2, -1)) / truth.square().sum((-2, -1))
    return factor.view(-1, 1, 1) * truth


def _distance(image: Tensor, truth: Tensor) -> Tensor:
    """L2 difference up to a factor, relative to the image, ``(n,)``."""
    rest = image - _fit(truth, image)
    return rest.flatten(1).norm(dim=1) / image.flatten(1).norm(dim=1)


def truths_of(pairs: Pairs) -> Pairs:
    """The truths as images of their own: clean."""
    zeros = [torch.zeros_like(x) for x in (pairs.kind, pairs.error, pairs.low, pairs.local)]
    return Pairs(pairs.truth, pairs.truth, pairs.ideal, *zeros, pairs.contrast, pairs.lesion)


def dense_target(local: Tensor, image_size: int, patch: int) -> Tensor:
    """Turn local errors into one number an image token: ``log(1 + rms / ERROR_UNIT)``.

    Args:
        local: ``(n, y, x)``.
        image_size: of the encoder, to which errors are cropped or padded as images are.
        patch: edge length of a token, pixels.

    Returns:
        ``(n, token)``.
    """
    whole = pad(local.square(), margins(local.shape, image_size))
    mean_square = avg_pool2d(whole[:, None], patch)
    return torch.log1p(mean_square.sqrt() / ERROR_UNIT).flatten(1)


def residual_target(pairs: Pairs, image_size: int, patch: int) -> Tensor:
    """Cut ``image - truth`` into the encoder's tokens: what should be taken away, pixel by pixel.

    Args:
        pairs: the images.
        image_size: of the encoder, to which errors are cropped or padded as images are.
        patch: edge length of a token, pixels.

    Returns:
        ``(n, token, patch * patch)``, relative to the image's maximum, in units of `ERROR_UNIT`.
    """
    error = (pairs.image - pairs.truth) / pairs.image.amax((-2, -1), keepdim=True) / ERROR_UNIT
    whole = pad(error, margins(error.shape, image_size))
    return unfold(whole[:, None], patch, stride=patch).movedim(1, 2)


def margins(shape: torch.Size, image_size: int) -> tuple[int, int, int, int]:
    """Rows and columns to pad (or, negative, to crop) so that images fill the encoder's input."""
    height, width = shape[-2:]
    top, left = image_size // 2 - height // 2, image_size // 2 - width // 2
    return left, image_size - width - left, top, image_size - height - top


def by_artefact(target: Tensor, kind: Tensor) -> Tensor:
    """Put each image's dense target into the channel of its artefact, zero in the others.

    Args:
        target: ``(n, token)``.
        kind: ``(n,)`` index into `KINDS`.

    Returns:
        ``(n, token, artefact)``: aliasing, blur, noise, ghosts, errors of reconstructions.
    """
    channels = [sum(kind == code for code in codes) for codes in ARTEFACTS]
    return target[..., None] * torch.stack(channels, -1)[:, None, :]
