import pytest
import torch

from mrisem.adaptation import questions
from mrisem.adaptation.pairs import Pairs, compare


def test_draw_material_moves_image_and_truth_together(recipe, generator):
    truth = torch.rand(3, 32, 32, generator=generator())
    image = truth.clone()
    image[:, 10, 12] += 0.5
    codes = torch.full((3,), 6)
    material = compare(image, truth, truth, codes, 0 * codes)
    drawn = recipe("material").draw_material(material, torch.ones(20), generator(1))
    spots = (drawn.image - drawn.truth).abs().flatten(1)
    assert (spots.topk(2, dim=1).values[:, 1] < 0.1 * spots.amax(1)).all()


def test_dense_loss_is_zero_of_the_errors_size_in_its_artefacts_channel(recipe):
    losses = recipe("losses")
    target = torch.zeros(7, 4, 64)
    target[:, 2] = 1.0  # of `ERROR_UNIT`
    dense = torch.zeros(7, 4, 5)
    channel = {1: 0, 2: 1, 3: 1, 4: 2, 5: 3, 6: 4}
    for kind, place in channel.items():
        dense[kind, 2, place] = torch.tensor(2.0).log()
    assert losses.dense_loss(dense, target, torch.arange(7)) < 1e-9
    assert losses.dense_loss(dense.roll(1, 2), target, torch.arange(7)) > 0.01


@pytest.mark.parametrize("size", [24, 32, 40])
def test_residual_target_is_the_error_patch_by_patch(recipe, size, generator):
    losses = recipe("losses")
    image, truth = torch.rand(2, 1, size, size, generator=generator())
    pairs = Pairs(image, truth, truth, *[torch.zeros(1)] * 4)
    target = losses.residual_target(pairs, 32, 8) * losses.ERROR_UNIT * image.max()
    assert target.shape == (1, 16, 64)
    whole = torch.zeros(32, 32)
    low, high = max(0, 16 - size // 2), min(32, 16 + size // 2)
    cut = slice(max(0, size // 2 - 16), min(size, size // 2 + 16))
    whole[low:high, low:high] = (image - truth)[0, cut, cut]
    for token, (row, column) in enumerate((r, c) for r in range(4) for c in range(4)):
        patch = whole[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        torch.testing.assert_close(target[0, token], patch.flatten())


def test_read_loss_is_zero_of_right_answers_alone(recipe):
    losses = recipe("losses")
    error, kind = torch.tensor([0.02, 0.2, 0.0]), torch.tensor([1, 1, 0])
    pairs = Pairs(*[error] * 3, kind, 0 * kind, error, error > 0.1)
    right = questions.answers_of(pairs)
    columns = [
        100.0 * torch.nn.functional.one_hot(answers.clamp_min(0), n)
        for answers, n in zip(right.T, losses.N_ANSWERS, strict=True)
    ]
    read = torch.cat(columns, 1)
    assert losses.read_loss(read, pairs) < 1e-6
    assert losses.read_loss(-read, pairs) > 10
    assert losses.error_loss((error + losses.LEAST).log()[:, None], pairs) == 0
