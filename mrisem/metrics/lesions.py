"""Preservation of lesions: their contrast, and the error in and around them."""

from dataclasses import dataclass

import numpy as np

SMALLEST_LESION = 6  # pixels; smaller sections are mostly edge
SMALLEST_RING = 12  # pixels
SMALLEST_CONTRAST = 0.05  # of the target; the share of a smaller contrast would be mostly noise
# Pixels: gap between lesion and ring, outer edge of the ring, margin of the bounding box.
_GAP, _RING, _MARGIN = 1, 4, 3


@dataclass(frozen=True)
class LesionScore:
    """Scores of one lesion in one slice.

    Args:
        lesion: number of the lesion.
        pixels: number of its pixels.
        target_contrast: ``(mean inside - mean of the ring) / mean of the ring`` in the target.
        contrast: contrast in the reconstruction over that in the target: 1 preserved, 0 lost,
            negative inverted, above 1 exaggerated.
        error: ``||x - t||^2 / ||t||^2`` in the lesion's bounding box and 3 pixels around it.
    """

    lesion: int
    pixels: int
    target_contrast: float
    contrast: float
    error: float


def score_lesions(
    reconstruction: np.ndarray, target: np.ndarray, labels: np.ndarray
) -> list[LesionScore]:
    """Score the lesions of a slice that are large and visible enough.

    The ring holds the pixels 2 to 4 steps from the lesion that belong to no other lesion. A lesion
    is left out if it has fewer than 6 pixels, its ring fewer than 12, or the target itself shows it
    with a contrast below 0.05.

    Args:
        reconstruction: ``(y, x)`` magnitude.
        target: ``(y, x)`` magnitude in the same unit.
        labels: ``(y, x)`` integer: number of the lesion at each pixel, or 0.
    """
    scores = []
    for number in np.unique(labels[labels > 0]).tolist():
        inside = labels == number
        ring = ring_around(inside) & (labels == 0)
        if inside.sum() < SMALLEST_LESION or ring.sum() < SMALLEST_RING:
            continue
        target_contrast = contrast(target, inside, ring)
        if not abs(target_contrast) >= SMALLEST_CONTRAST:  # NaN, of a black ring, is left out too
            continue
        box = bounding_box(inside)
        target_box = target[box].astype(np.float64)
        error = float(((reconstruction[box] - target_box) ** 2).sum() / (target_box**2).sum())
        kept_share = contrast(reconstruction, inside, ring) / target_contrast
        scores.append(LesionScore(number, int(inside.sum()), target_contrast, kept_share, error))
    return scores


def contrast(image: np.ndarray, inside: np.ndarray, ring: np.ndarray) -> float:
    """Compute ``(mean inside - mean of the ring) / mean of the ring``; NaN for a black ring.

    >>> image = np.array([3.0, 2.0, 2.0])
    >>> contrast(image, image > 2, image == 2)
    0.5
    """
    mean_of_ring = float(image[ring].mean(dtype=np.float64))
    if mean_of_ring == 0:
        return float("nan")
    return (float(image[inside].mean(dtype=np.float64)) - mean_of_ring) / mean_of_ring


def ring_around(inside: np.ndarray) -> np.ndarray:
    """Mark the pixels 2 to 4 steps (along y, x or a diagonal) outside a region: ``(y, x)`` bool."""
    return _dilate(inside, _RING) & ~_dilate(inside, _GAP)


def bounding_box(inside: np.ndarray) -> tuple[slice, ...]:
    """Find the bounding box of a region with a margin of 3 pixels, within the image."""
    from scipy.ndimage import find_objects

    box: tuple[slice, ...] = find_objects(_dilate(inside, _MARGIN).astype(int))[0]
    return box


def _dilate(inside: np.ndarray, steps: int) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    dilated: np.ndarray = binary_dilation(inside, np.ones((3, 3), dtype=bool), iterations=steps)
    return dilated
