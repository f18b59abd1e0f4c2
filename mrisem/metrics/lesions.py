"""Whether lesions are kept: their contrast, and the error in and around them."""

from dataclasses import dataclass

import numpy as np

SMALLEST_LESION = 6  # pixels; smaller sections are mostly edge
SMALLEST_RING = 12  # pixels
SMALLEST_CONTRAST = 0.05  # of the target: below, a recovered share means nothing
_GAP, _RING, _MARGIN = 1, 4, 3  # pixels


@dataclass(frozen=True)
class LesionScore:
    """One lesion in one slice.

    Args:
        lesion: its number.
        pixels: how many it takes.
        target_contrast: ``(mean inside - mean of the ring) / mean of the ring`` in the target.
        contrast: the reconstruction's contrast over the target's: 1 is kept, 0 is lost, negative is
            turned over, above 1 is exaggerated.
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
    """Score the lesions of a slice that can be scored.

    The ring holds the pixels 2 to 4 steps from the lesion that belong to no other lesion. A lesion
    is left out where it takes fewer than 6 pixels, its ring fewer than 12, or where the target
    itself shows it with a contrast below 0.05.

    Args:
        reconstruction: ``(y, x)`` magnitude.
        target: ``(y, x)`` magnitude, same units.
        labels: ``(y, x)`` integer: 0, or a lesion's number.
    """
    scores = []
    for number in np.unique(labels[labels > 0]).tolist():
        inside = labels == number
        ring = ring_around(inside) & (labels == 0)
        if inside.sum() < SMALLEST_LESION or ring.sum() < SMALLEST_RING:
            continue
        wanted = contrast(target, inside, ring)
        if not abs(wanted) >= SMALLEST_CONTRAST:
            continue
        box = bounding_box(inside)
        part = target[box].astype(np.float64)
        error = float(((reconstruction[box] - part) ** 2).sum() / (part**2).sum())
        kept = contrast(reconstruction, inside, ring) / wanted
        scores.append(LesionScore(number, int(inside.sum()), wanted, kept, error))
    return scores


def contrast(image: np.ndarray, inside: np.ndarray, ring: np.ndarray) -> float:
    """``(mean inside - mean of the ring) / mean of the ring``; NaN where the ring is black.

    >>> image = np.array([3.0, 2.0, 2.0])
    >>> contrast(image, image > 2, image == 2)
    0.5
    """
    around = float(image[ring].mean(dtype=np.float64))
    if around == 0:
        return float("nan")
    return (float(image[inside].mean(dtype=np.float64)) - around) / around


def ring_around(inside: np.ndarray) -> np.ndarray:
    """Pixels 2 to 4 steps (in y, x or along a diagonal) outside a region, ``(y, x)`` bool."""
    return _widened(inside, _RING) & ~_widened(inside, _GAP)


def bounding_box(inside: np.ndarray) -> tuple[slice, ...]:
    """Bounding box of a region and 3 pixels around it, within the image."""
    from scipy.ndimage import find_objects

    box: tuple[slice, ...] = find_objects(_widened(inside, _MARGIN).astype(int))[0]
    return box


def _widened(inside: np.ndarray, steps: int) -> np.ndarray:
    from scipy.ndimage import binary_dilation

    wide: np.ndarray = binary_dilation(inside, np.ones((3, 3), dtype=bool), iterations=steps)
    return wide
