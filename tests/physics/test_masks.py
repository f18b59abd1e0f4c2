import re

import numpy as np
import pytest
import torch

from mrisem.errors import InputError
from mrisem.physics.draws import MixedMask, draw_columns, paired
from mrisem.physics.masks import (
    FASTMRI_CLASSES,
    FastMRIMask,
    FileMask,
    GaussianMask,
    calibration_lines,
    stable_seed,
)


@pytest.mark.parametrize("acceleration", [3, 4, 5.5, 8])
@pytest.mark.parametrize(("n_columns", "padding"), [(368, (0, 368)), (331, (20, 300))])
def test_gaussian_mask_samples_exactly_the_budget_within_the_padding(
    acceleration, n_columns, padding
):
    left, right = padding
    for seed in range(5):
        mask = GaussianMask(acceleration)(n_columns, padding, seed)
        assert mask.shape == (n_columns,)
        assert mask.dtype == torch.bool
        assert int(mask.sum()) == round((right - left) / acceleration)
        assert not mask[:left].any()
        assert not mask[right:].any()
        assert mask[n_columns // 2 - 12 : n_columns // 2 + 12].all()
        assert calibration_lines(mask) >= 24


def test_gaussian_mask_density_has_the_stated_standard_deviation():
    # Few draws of many columns without calibration lines: close to draws with replacement.
    masks = [GaussianMask(50, calibration_lines=0)(400, (0, 400), seed) for seed in range(400)]
    columns = torch.stack(masks).nonzero()[:, 1].double() - 200
    # A normal density of std 100 cut at +-200 has a std of 88.
    assert abs(columns.std().item() - 88) < 3
    assert abs(columns.mean().item()) < 5


def test_gaussian_mask_refuses_calibration_lines_beyond_the_budget():
    with pytest.raises(InputError, match=r"22 lines that 4-fold acceleration leaves of 88, got 24"):
        GaussianMask(4)(96, (4, 92), 0)


def test_gaussian_mask_refuses_calibration_lines_outside_the_acquired_columns():
    with pytest.raises(InputError, match="within the acquired columns"):
        GaussianMask(2)(100, (45, 100), 0)


@pytest.mark.parametrize("n_columns", [64, 65])
@pytest.mark.parametrize("lines", [0, 7, 8])
def test_gaussian_mask_center_is_the_block_that_every_draw_samples(n_columns, lines):
    mask = GaussianMask(4, calibration_lines=lines)
    center = mask.center(n_columns)
    assert int(center.sum()) == calibration_lines(center) == lines
    draws = torch.stack([mask(n_columns, (0, n_columns), seed) for seed in range(60)])
    assert torch.equal(draws.all(0), center)


def test_refused_calibration_lines_name_an_acceleration_that_serves():
    with pytest.raises(InputError) as refused:
        GaussianMask(4)(96, (4, 92), 0)
    highest = re.search(r"mask\.acceleration to at most ([\d.]+)", str(refused.value))[1]
    assert float(highest) == pytest.approx(88 / 24, abs=0.01)
    assert int(GaussianMask(float(highest))(96, (4, 92), 0).sum()) == 24


def test_fastmri_mask_is_by_default_the_four_fold_one_of_the_challenge():
    expected = FastMRIMask("random", 4, 0.08)(368, (0, 368), 3)
    assert torch.equal(FastMRIMask("random")(368, (0, 368), 3), expected)


def test_gaussian_mask_is_by_default_the_papers():
    assert GaussianMask() == GaussianMask(4, calibration_lines=24, std_fraction=0.25)


def test_mask_refuses_an_acceleration_below_one():
    with pytest.raises(InputError, match=r"at least 1, got 0\.5"):
        GaussianMask(0.5)


def test_mask_refuses_an_acceleration_that_is_no_number():
    with pytest.raises(InputError, match="a number of at least 1, got 'two'"):
        GaussianMask("two")


@pytest.mark.parametrize("kind", FASTMRI_CLASSES)
@pytest.mark.parametrize(("acceleration", "fraction"), [(4, 0.08), (8, 0.04)])
def test_fastmri_mask_equals_fastmri(kind, acceleration, fraction):
    from fastmri.data.subsample import create_mask_for_mask_type

    expected, n_center = create_mask_for_mask_type(kind, [fraction], [acceleration])(
        (1, 368, 1), seed=7
    )
    mask = FastMRIMask(kind, acceleration)(368, (0, 368), 7)
    np.testing.assert_array_equal(mask.numpy(), expected.numpy().ravel() > 0)
    assert calibration_lines(mask) >= n_center == round(368 * fraction)


def test_fastmri_mask_leaves_padding_out_and_the_global_seed_alone():
    np.random.seed(3)
    expected = np.random.RandomState(3).uniform()
    mask = FastMRIMask("random")(368, (30, 340), 1)
    assert np.random.uniform() == expected
    assert not mask[:30].any()
    assert not mask[340:].any()


def test_fastmri_mask_refuses_what_fastmri_would_sample_silently_wrong():
    with pytest.raises(InputError, match="one of"):
        FastMRIMask("spiral")
    with pytest.raises(InputError, match="whole number"):
        FastMRIMask("equispaced", 4.5)
    with pytest.raises(InputError, match="at most the number of acquired columns, 368, got 400"):
        FastMRIMask("random", 400)(368, (0, 368), 0)


@pytest.mark.parametrize("kind", FASTMRI_CLASSES)
@pytest.mark.parametrize("n_columns", [331, 366, 368, 374])
@pytest.mark.parametrize("fraction", [0.247, 0.25])
def test_fastmri_mask_near_the_whole_budget_keeps_to_it(kind, n_columns, fraction):
    center = min(round(n_columns * fraction), n_columns // 4)
    mask = FastMRIMask(kind, 4, center_fraction=fraction)
    columns = draw_columns(mask, n_columns, (0, n_columns), 0)
    assert calibration_lines(columns) >= center - 1  # fastMRI's centre may lie off by one column
    assert int(mask.center(n_columns).sum()) == center
    assert not (mask.center(n_columns) & ~columns).any()
    if kind == "equispaced_fraction":
        assert int(columns.sum()) <= n_columns / 4 + 2


@pytest.mark.parametrize("kind", FASTMRI_CLASSES)
@pytest.mark.parametrize("fraction", [0.2501, 0.45, 1])
def test_fastmri_mask_over_the_budget_is_refused_when_it_is_made(kind, fraction):
    with pytest.raises(InputError, match=rf"at most .* = 1 / 4 = 0\.25, got {fraction}"):
        FastMRIMask(kind, 4, center_fraction=fraction)


def test_masks_at_their_limits_are_masks_or_one_line():
    rng = np.random.default_rng(0)
    n_masks = 0
    for _ in range(1500):
        width = int(rng.integers(1, 80))
        left = int(rng.integers(0, max(1, width // 4)))
        padding = (left, int(rng.integers(left + 1, width + 1)))
        acceleration = rng.choice([1.0, 2.0, 4.0, 7.5, width, width + 1, 1e300])
        fraction = rng.choice([0, 0.04, 1 / acceleration, min(1, 1.1 / acceleration), 1])
        lines = int(rng.choice([0, 1, 8, width // max(1, int(min(acceleration, 99))), width]))
        std = float(rng.choice([0.001, 0.05, 0.25, 100]))
        kind = rng.choice([*FASTMRI_CLASSES, "gaussian"])
        try:
            if kind == "gaussian":
                mask = GaussianMask(float(acceleration), lines, std)
            else:
                mask = FastMRIMask(kind, float(acceleration), float(fraction))
            columns = draw_columns(mask, width, padding, int(rng.integers(2**31)))
        except InputError:
            continue
        n_masks += 1
        center = mask.center(width)
        center[: padding[0]] = False
        center[padding[1] :] = False
        assert not (center & ~columns).any()
        if kind == "gaussian":
            assert int(columns.sum()) == round((padding[1] - padding[0]) / acceleration)
        if acceleration == 1:
            assert int(columns.sum()) == padding[1] - padding[0]
    assert n_masks > 500


def test_paired_masks_share_the_centre_lines_that_all_of_them_sample():
    options = {"kind": "random", "acceleration": [4, 8], "center_fraction": [0.08, 0.04]}
    mixed = paired(FastMRIMask, options)
    assert int(mixed.center(368).sum()) == round(0.04 * 368)
    for seed in range(8):
        assert not (mixed.center(368) & ~draw_columns(mixed, 368, (0, 368), seed)).any()
    assert not paired(Every, {"step": [2, 3]}).center(12).any()


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan"), "wide", True])
def test_fastmri_mask_refuses_a_center_fraction_that_is_no_share(fraction):
    with pytest.raises(InputError, match="must be a number of at least 0 and at most 1, got"):
        FastMRIMask("random", 4, center_fraction=fraction)


@pytest.mark.parametrize("acceleration", [float("inf"), float("nan"), True, None])
def test_mask_refuses_an_acceleration_that_is_not_finite(acceleration):
    with pytest.raises(InputError, match="a number of at least 1, got"):
        FastMRIMask("random", acceleration)


@pytest.mark.parametrize("lines", [-1, "many"])
def test_gaussian_mask_refuses_calibration_lines_that_are_no_count(lines):
    with pytest.raises(InputError, match="a number of at least 0, got"):
        GaussianMask(4, calibration_lines=lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibration_lines": 8.5}, r"whole number, got 8\.5"),
        ({"std_fraction": 0}, r"std_fraction must be a number of at least 0\.001, got 0"),
        ({"std_fraction": float("nan")}, "std_fraction must be a number"),
    ],
)
def test_gaussian_mask_refuses_options_without_meaning(options, message):
    with pytest.raises(InputError, match=message):
        GaussianMask(4, **options)


def test_gaussian_mask_says_when_its_density_reaches_too_few_columns():
    with pytest.raises(
        InputError, match=r"got 7 of 100 columns within reach of mask\.std_fraction=0\.001"
    ):
        GaussianMask(2, 0, 0.001)(100, (0, 100), 0)


def test_masks_are_reproducible_and_differ_between_seeds():
    for mask in (GaussianMask(), FastMRIMask("random")):
        assert torch.equal(mask(368, (0, 368), 1), mask(368, (0, 368), 1))
        assert not torch.equal(mask(368, (0, 368), 1), mask(368, (0, 368), 2))


def test_stable_seed_is_the_same_in_every_process():
    assert stable_seed("file1000000.h5", 0) == 3684986944
    assert stable_seed("a", "b") != stable_seed("ab")


def test_file_mask_checks_presence_and_width():
    mask = FileMask().check(np.array([0, 1, 1.0]), 3, "a.h5")
    assert mask.tolist() == [False, True, True]
    with pytest.raises(InputError, match=r"got none in a\.h5"):
        FileMask().check(None, 3, "a.h5")
    for values in (np.array([1, np.nan]), np.array(["a", "b"]), np.array([1j, 0])):
        with pytest.raises(InputError, match=r"finite numbers or True and False, .* in a\.h5"):
            FileMask().check(values, 2, "a.h5")
    with pytest.raises(InputError, match=r"\(x,\) = \(4,\) or \(y, x\), got \(3,\) in a\.h5"):
        FileMask().check(np.ones(3), 4, "a.h5")


@pytest.mark.parametrize(("n", "width"), [(16, 6), (16, 5), (15, 4), (15, 7)])
def test_calibration_lines_is_the_widest_centred_crop(n, width):
    mask = torch.zeros(n, dtype=torch.bool)
    mask[n // 2 - width // 2 :][:width] = True
    assert calibration_lines(mask) == width
    mask[0] = True
    assert calibration_lines(mask) == width
    assert calibration_lines(torch.ones(n, dtype=torch.bool)) == n
    assert calibration_lines(torch.zeros(n, dtype=torch.bool)) == 0


def test_mixed_mask_is_one_of_its_masks_and_each_in_turn():
    masks = (GaussianMask(4), GaussianMask(8, calibration_lines=12))
    mixed = MixedMask(masks)
    seen = {0: 0, 1: 0}
    for seed in range(40):
        columns = mixed(128, (0, 128), seed)
        same = [torch.equal(columns, mask(128, (0, 128), seed)) for mask in masks]
        assert sum(same) == 1
        seen[same.index(True)] += 1
    assert min(seen.values()) > 8


def test_paired_options_go_together_and_a_single_one_holds_for_each():
    options = {"kind": "random", "acceleration": [4, 8], "center_fraction": [0.08, 0.04]}
    expected = (FastMRIMask("random", 4, 0.08), FastMRIMask("random", 8, 0.04))
    assert paired(FastMRIMask, options) == MixedMask(expected)
    assert paired(FastMRIMask, {"kind": "random", "acceleration": 8}) == FastMRIMask("random", 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"acceleration": [4, 8], "calibration_lines": [24]}, "acceleration with 2, mask.calib"),
        ({"acceleration": []}, "the same length, at least 1, got mask.acceleration with 0"),
        ({"acceleration": [4, 0.5]}, r"at least 1, got 0\.5"),
    ],
)
def test_paired_options_of_unequal_length_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        paired(GaussianMask, options)


class Every:
    """A mask from outside the package: every ``step``-th column."""

    def __init__(self, step=2, give=lambda columns: columns):
        self.step = step
        self.give = give

    def __call__(self, n_columns, padding, seed):
        columns = torch.zeros(n_columns, dtype=torch.bool)
        columns[padding[0] : padding[1] : self.step] = True
        return self.give(columns)


def test_mask_of_another_package_is_drawn_paired_and_mixed():
    columns = draw_columns(Every(), 9, (2, 8), 0)
    assert columns.nonzero().flatten().tolist() == [2, 4, 6]
    mixed = paired(Every, {"step": [2, 3]})
    drawn = {int(draw_columns(mixed, 12, (0, 12), seed).sum()) for seed in range(20)}
    assert drawn == {6, 4}


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Every(give=lambda c: c.float()), r"got Tensor \(9,\) torch.float32 of Every for x = 9"),
        (Every(give=lambda c: c[None]), r"got Tensor \(1, 9\) torch.bool of Every"),
        (Every(give=lambda c: c.numpy()), "got ndarray"),
        (Every(give=torch.logical_not), r"columns \(2, 8\), got 3 others of Every"),
        (object(), "got an object of class object"),
    ],
)
def test_mask_of_another_package_is_checked_where_it_enters(mask, message):
    with pytest.raises(InputError, match=message):
        draw_columns(mask, 9, (2, 8), 0)
