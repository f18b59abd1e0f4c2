"""Lesion scores against squares whose contrast is known."""

import numpy as np
import pytest

from mrisem.metrics.lesions import SMALLEST_LESION, bounding_box, ring_around, score_lesions


@pytest.fixture
def square():
    """Tissue of 2 with a lesion of 3 (contrast 0.5) in 4 x 4 pixels."""
    labels = np.zeros((40, 40), dtype=np.uint8)
    labels[10:14, 20:24] = 7
    return np.where(labels, 3.0, 2.0).astype(np.float32), labels


@pytest.mark.parametrize(
    ("inside", "kept"), [(3.0, 1.0), (2.0, 0.0), (2.5, 0.5), (4.0, 2.0), (1.5, -0.5)]
)
def test_lesion_contrast_is_the_share_of_the_targets(square, inside, kept):
    target, labels = square
    image = np.where(labels, inside, 2.0)
    (score,) = score_lesions(image, target, labels)
    assert score.contrast == pytest.approx(kept)
    assert score.target_contrast == pytest.approx(0.5)
    assert (score.lesion, score.pixels) == (7, 16)
    box = 16 * 3**2 + (100 - 16) * 2**2  # (4 + 2 * 3)^2 pixels
    assert score.error == pytest.approx(16 * (inside - 3) ** 2 / box)


def test_lesion_contrast_does_not_depend_on_the_images_scale(square):
    target, labels = square
    (score,) = score_lesions(0.1 * target, target, labels)
    assert score.contrast == pytest.approx(1.0)
    assert score.error == pytest.approx(0.81)


def test_lesion_error_is_blind_to_what_lies_outside_the_box(square):
    target, labels = square
    image = target.copy()
    image[30:, :] = 9.0
    image[:, :16] = 9.0
    (score,) = score_lesions(image, target, labels)
    assert score.error == 0.0
    image[7, 17] = 2.5  # the box's corner
    assert score_lesions(image, target, labels)[0].error > 0


def test_lesion_ring_leaves_a_gap_and_other_lesions_out(square):
    target, labels = square
    ring = ring_around(labels == 7)
    rows, columns = np.nonzero(ring)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 17, 16, 27)
    assert ring.sum() == 12**2 - 6**2
    labels[6:18, 25:30] = 8  # a brighter neighbour must not lower the contrast
    bright = np.where(labels == 8, 9.0, target).astype(np.float32)
    first = next(score for score in score_lesions(bright, bright, labels) if score.lesion == 7)
    assert first.target_contrast == pytest.approx(0.5)


def test_lesions_that_cannot_be_scored_are_left_out(square):
    target, labels = square
    flat = np.where(labels, 2.05, 2.0)
    assert score_lesions(target, flat, labels) == []  # the target hardly shows it
    labels[labels > 0] = 0
    labels[5, 5 : 5 + SMALLEST_LESION - 1] = 1
    assert score_lesions(target, np.where(labels, 3.0, 2.0), labels) == []
    black = np.where(labels, 3.0, 0.0)
    labels[6, 5:10] = 1
    assert score_lesions(target, black, labels) == []  # nothing around it
    labels[:] = 1
    assert score_lesions(target, target, labels) == []  # no ring


def test_bounding_box_ends_at_the_image():
    inside = np.zeros((8, 8), dtype=bool)
    inside[0, 7] = True
    assert np.ones((8, 8))[bounding_box(inside)].shape == (4, 4)
