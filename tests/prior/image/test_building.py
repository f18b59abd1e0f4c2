import pytest
import torch
from sklearn.decomposition import PCA

from mrisem.errors import InputError
from mrisem.prior.image.building import build_bank


def test_bank_projects_as_scikit_learn_does(linear, bank, pairs):
    images = torch.stack([p[0] for p in pairs] + [p[1] for p in pairs])
    raw = linear(images)[0]
    pca = PCA(3).fit(raw.reshape(-1, 6).numpy())
    expected = torch.from_numpy(pca.transform(raw.reshape(-1, 6).numpy())).reshape(10, 4, 3)
    expected = torch.nn.functional.normalize(expected, dim=-1)
    level = bank.levels[1]
    got = level.entries.reshape(10, 4, 3)
    signs = (got * expected).sum((0, 1)).sign()  # the sign of a component is free
    torch.testing.assert_close(got * signs, expected, atol=1e-4, rtol=0)
    assert level.explained_variance == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-5)
    assert level.n_positives == 5


def test_bank_refuses_bad_requests(linear, pairs):
    with pytest.raises(InputError, match="at least one auxiliary slice"):
        build_bank(linear, [], [3, 3], {})
    with pytest.raises(InputError, match="must be 1 to 6"):
        build_bank(linear, pairs, [3, 7], {})


def test_bank_does_not_depend_on_the_batch_size(linear, bank, pairs):
    other = build_bank(linear, pairs, [3, 6], {}, batch_size=2)
    for level, expected in bank.levels.items():
        torch.testing.assert_close(other.levels[level].entries, expected.entries)


def test_bank_of_images_of_several_sizes(linear, pairs):
    class AnySize(type(linear)):
        def __call__(self, magnitude):
            return super().__call__(magnitude[:, :8, :8])

    mixed = [pairs[0], (torch.ones(12, 9), torch.ones(12, 9), None), pairs[2]]
    built = build_bank(AnySize(), mixed, [3, 6], {})
    assert len(built.levels[1].entries) == 6


def test_bank_without_pca_keeps_normalised_tokens(linear, pairs):
    built = build_bank(linear, pairs, [None, 3], {})
    raw = linear(pairs[0][0][None])[0]
    expected = torch.nn.functional.normalize(raw, dim=-1).flatten()
    torch.testing.assert_close(built.levels[1].entries[0], expected)


def test_bank_refuses_sides_that_were_not_prepared_alike(linear):
    pairs = [(torch.ones(8, 8), torch.ones(8, 9), None)]
    with pytest.raises(InputError, match="prepared alike"):
        build_bank(linear, pairs, [3, 6], {})
