import pytest
import torch

from mrisem.physics.fourier import fft2c


def test_line_masks_reach_the_acceleration_and_keep_the_centre(recipe, generator):
    acceleration = torch.linspace(2, 8, 30)
    masks = recipe("degrade").line_masks(acceleration, 192, generator())
    assert masks[:, 96].all()
    reached = 192 / masks.sum(1)
    assert ((reached - acceleration).abs() < 1).float().mean() > 0.6  # equispaced: centre on top
    assert (reached < acceleration + 0.2).all()


@pytest.fixture
def slices(recipe, phantom):
    """Number, size -> that many clean slices."""

    def make(n, size):
        contrast = torch.zeros(n, dtype=torch.long)
        return recipe("pool").Slices(phantom(n, size), contrast, -torch.ones_like(contrast))

    return make


def test_pairs_have_no_error_when_clean_and_one_when_degraded(recipe, slices, generator):
    degrade = recipe("degrade")
    pairs = degrade.make_pairs(slices(48, 64), 64, generator(1))
    clean = pairs.kind == 0
    assert (pairs.error[clean] < 1e-6).all()
    assert (pairs.local[clean] < 1e-6).all()
    assert pairs.error[~clean].mean() > 0.05
    rest = pairs.image - pairs.truth  # the truth is scaled to fit best: what is left is orthogonal
    assert (rest * pairs.truth).sum((1, 2)).abs().max() < 1e-2


def test_lacking_the_scans_noise_is_no_damage(recipe, phantom, generator):
    pairs, ideal = recipe("pairs"), phantom(4, 64)
    noise, more = 0.05 * torch.randn(2, 64, 64, generator=generator())
    noisy = ideal + noise
    blurred = 0.5 * (noisy[2] + noisy[2].roll(4, -1))
    image = torch.stack([3.0 * ideal[0], noisy[1], blurred, noisy[3] + 3 * more])
    codes = torch.zeros(4, dtype=torch.long)
    found = pairs.compare(image, noisy, ideal, codes, codes, codes)
    assert found.error[0] > pairs.LOW  # all of it the scan's own noise
    assert found.low.tolist() == [False, False, True, True]


@pytest.mark.parametrize("kind", [0, 4])
def test_complete_scans_hold_the_noise_of_their_contrast(recipe, slices, generator, kind):
    degrade, pairs = recipe("degrade"), recipe("pairs")
    made = degrade.make_pairs(slices(64, 64), 64, generator(2))
    of_kind = made.kind == kind
    truth, ideal = made.truth[of_kind], made.ideal[of_kind]
    level = degrade.noise_levels(ideal, made.contrast[of_kind])
    noise = (truth - pairs._fit(ideal, truth))[ideal > 0.3].std() / level.mean()
    most = degrade.MOST_NOISE
    low, high = (0.9 * most, 1.1 * most) if kind == degrade.NOISE else (0.2 * most, 0.8 * most)
    assert low < noise < high


def test_draw_pairs_never_enlarges(recipe, slices, generator):
    degrade = recipe("degrade")
    pool = [slices(2, 48), slices(2, 64)]
    sizes = {degrade.draw_pairs(pool, [40, 60], 2, generator(i)).image.shape[-1] for i in range(20)}
    assert sizes == {40, 60}
    assert degrade.draw_pairs(pool[:1], [40, 60], 2, generator()).image.shape[-1] == 40


def test_draw_material_moves_image_and_truth_together(recipe, generator):
    degrade = recipe("degrade")
    truth = torch.rand(3, 32, 32, generator=generator())
    image = truth.clone()
    image[:, 10, 12] += 0.5
    codes = torch.full((3,), 6)
    material = recipe("pairs").compare(image, truth, truth, codes, 0 * codes, -1 + 0 * codes)
    drawn = degrade.draw_material(material, 20, generator(1))
    spots = drawn.local.flatten(1)
    assert (spots.topk(2, dim=1).values[:, 1] < 0.1 * spots.amax(1)).all()


def test_ghosts_keep_the_energy_and_move_it(recipe, generator, phantom):
    truth = torch.polar(phantom(4, 64), torch.zeros(4, 64, 64))
    ghosted = recipe("degrade")._ghosted(truth, torch.zeros(4), generator())
    torch.testing.assert_close(ghosted.square().sum(), truth.abs().square().sum())
    assert (ghosted - truth.abs()).flatten(1).norm(dim=1).min() > 0.01 * truth[0].norm()


def test_blur_lowers_high_frequencies(recipe, generator, phantom):
    truth = torch.polar(phantom(4, 192), torch.zeros(4, 192, 192))
    blurred = recipe("degrade")._blurred(truth, torch.zeros(4), generator())
    edge = torch.arange(192)[None, :].sub(96).abs().expand(192, -1) > 80
    before, after = fft2c(truth).abs()[:, edge], fft2c(blurred + 0j).abs()[:, edge]
    assert (after.norm(dim=1) < 0.5 * before.norm(dim=1)).all()


def test_dense_target_places_the_error_on_its_token(recipe):
    pairs_of = recipe("pairs")
    local = torch.zeros(1, 32, 32)
    local[0, 8:16, 16:24] = pairs_of.ERROR_UNIT
    target = pairs_of.dense_target(local, 32, 8).reshape(4, 4)
    expected = torch.zeros(4, 4)
    expected[1, 2] = torch.tensor(2.0).log()
    torch.testing.assert_close(target, expected)


@pytest.mark.parametrize("size", [24, 32, 40])
def test_residual_target_is_the_error_patch_by_patch(recipe, size, generator):
    pairs_of = recipe("pairs")
    image, truth = torch.rand(2, 1, size, size, generator=generator())
    codes = torch.zeros(1, dtype=torch.long)
    pairs = pairs_of.Pairs(image, truth, truth, codes, image, image, image, codes, codes)
    target = pairs_of.residual_target(pairs, 32, 8) * pairs_of.ERROR_UNIT * image.max()
    assert target.shape == (1, 16, 64)
    whole = torch.zeros(32, 32)
    low, high = max(0, 16 - size // 2), min(32, 16 + size // 2)
    cut = slice(max(0, size // 2 - 16), min(size, size // 2 + 16))
    whole[low:high, low:high] = (image - truth)[0, cut, cut]
    for token, (row, column) in enumerate((r, c) for r in range(4) for c in range(4)):
        patch = whole[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        torch.testing.assert_close(target[0, token], patch.flatten())


def test_by_artefact_sorts_errors_into_channels(recipe):
    sorted_errors = recipe("pairs").by_artefact(torch.ones(7, 2), torch.arange(7))
    channel = {1: 0, 2: 1, 3: 1, 4: 2, 5: 3, 6: 4}
    for kind in range(7):
        expected = [float(channel.get(kind) == c) for c in range(5)]
        assert sorted_errors[kind, 0].tolist() == expected
    assert torch.equal(sorted_errors[:, 0], sorted_errors[:, 1])


def test_pool_knows_which_slices_show_a_lesion(recipe):
    pool = recipe("pool")
    found = pool._slices("brain", 64, 2, range(6))
    assert found.lesion.shape == found.contrast.shape == (36,)
    assert {0, 1} == set(found.lesion.tolist())
    assert set(pool._slices("knee", 64, 1, range(1)).lesion.tolist()) == {-1}
