import pytest
import torch

from mrisem.adaptation import degrade, pairs
from mrisem.physics.fourier import fft2c


def test_line_masks_reach_the_acceleration_and_keep_the_centre(generator):
    acceleration = torch.linspace(2, 8, 30)
    masks = degrade.line_masks(acceleration, 192, generator())
    assert masks[:, 96].all()
    reached = 192 / masks.sum(1)
    assert ((reached - acceleration).abs() < 1).float().mean() > 0.6  # equispaced: centre on top
    assert (reached < acceleration + 0.5).all()


@pytest.fixture
def make_pairs(phantom, generator):
    """Number, size, seed -> that many degraded slices, of T1 brains."""

    def make(n, size, seed):
        severity = torch.ones(n)
        contrast = torch.zeros(n, dtype=torch.long)
        return degrade.make_pairs(phantom(n, size), contrast, size, severity, generator(seed))

    return make


def test_pairs_have_no_error_when_clean_and_one_when_degraded(make_pairs):
    made = make_pairs(48, 64, 1)
    clean = made.kind == 0
    assert (made.error[clean] < 1e-6).all()
    assert made.error[~clean].mean() > 0.05
    rest = made.image - made.truth  # the truth is scaled to fit best: what is left is orthogonal
    assert (rest * made.truth).sum((1, 2)).abs().max() < 1e-2


def test_severity_keeps_all_some_or_none_of_the_damage(phantom, generator):
    severity = degrade.draw_severity(4000, generator(), full=0.3, clean=0.25)
    assert (severity == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert (severity == 1).float().mean() == pytest.approx(0.3 * 0.75, abs=0.03)
    contrast = torch.zeros(48, dtype=torch.long)
    made = degrade.make_pairs(phantom(48, 64), contrast, 64, torch.zeros(48), generator(1))
    assert (made.error < 1e-6).all()
    assert not made.low.any()


def test_lacking_the_scans_noise_is_no_damage(phantom, generator):
    ideal = phantom(4, 64)
    noise, more = 0.05 * torch.randn(2, 64, 64, generator=generator())
    noisy = ideal + noise
    blurred = 0.5 * (noisy[2] + noisy[2].roll(4, -1))
    image = torch.stack([3.0 * ideal[0], noisy[1], blurred, noisy[3] + 3 * more])
    codes = torch.zeros(4, dtype=torch.long)
    found = pairs.compare(image, noisy, ideal, codes, codes)
    assert found.error[0] > pairs.LOW  # all of it the scan's own noise
    assert found.low.tolist() == [False, False, True, True]


@pytest.mark.parametrize("kind", [0, 4])
def test_complete_scans_hold_the_noise_of_their_contrast(make_pairs, kind):
    made = make_pairs(64, 64, 2)
    of_kind = made.kind == kind
    truth, ideal = made.truth[of_kind], made.ideal[of_kind]
    level = degrade.noise_levels(ideal, made.contrast[of_kind])
    noise = (truth - pairs.fit(ideal, truth))[ideal > 0.3].std() / level.mean()
    most = degrade.MOST_NOISE
    low, high = (0.9 * most, 1.1 * most) if kind == degrade.NOISE else (0.2 * most, 0.8 * most)
    assert low < noise < high


def test_draw_pairs_never_enlarges(phantom, generator):
    two = torch.ones(2)
    pool = {size: (phantom(2, size).half(), torch.zeros(2).long()) for size in (48, 64)}
    drawn = [degrade.draw_pairs(pool, [40, 60], two, generator(seed)) for seed in range(20)]
    assert {made.image.shape[-1] for made in drawn} == {40, 60}
    small = {48: pool[48]}
    assert degrade.draw_pairs(small, [40, 60], two, generator()).image.shape[-1] == 40


def test_ghosts_keep_the_energy_and_move_it(generator, phantom):
    truth = torch.polar(phantom(4, 64), torch.zeros(4, 64, 64))
    ghosted = degrade._ghosted(truth, torch.zeros(4), generator())
    torch.testing.assert_close(ghosted.square().sum(), truth.abs().square().sum())
    assert (ghosted - truth.abs()).flatten(1).norm(dim=1).min() > 0.01 * truth[0].norm()


def test_blur_lowers_high_frequencies(generator, phantom):
    truth = torch.polar(phantom(4, 192), torch.zeros(4, 192, 192))
    blurred = degrade._blurred(truth, torch.zeros(4), generator())
    edge = torch.arange(192)[None, :].sub(96).abs().expand(192, -1) > 80
    before, after = fft2c(truth).abs()[:, edge], fft2c(blurred + 0j).abs()[:, edge]
    assert (after.norm(dim=1) < 0.5 * before.norm(dim=1)).all()
