import pytest
import torch
from sklearn.decomposition import PCA

from mrisem.errors import InputError
from mrisem.prior.cache import Unfinished
from mrisem.prior.image.building import build_bank


class LinearEncoder:
    """Tokens are fixed linear maps of 4 x 4 patches, at two levels."""

    levels = (1, 2)
    widths = (6, 6)

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.weights = [torch.randn(16, 6, generator=generator) for _ in self.levels]

    def __call__(self, magnitude):
        patches = magnitude.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3).flatten(1, 2)
        return tuple(patches @ w for w in self.weights)


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


def test_bank_has_fewer_components_than_tokens(pairs):
    class Wide(LinearEncoder):
        widths = (16, 16)

        def __init__(self):
            self.weights = [torch.eye(16)] * 2

    built = build_bank(Wide(), pairs[:1], [7, None], {})  # two images of four tokens
    assert built.levels[1].explained_variance == pytest.approx(1, abs=1e-6)
    assert built.levels[2].explained_variance == 1
    assert build_bank(Wide(), pairs[:1], [1, None], {}).levels[1].components.shape == (16, 1)
    for n_components in (0, 8):
        with pytest.raises(InputError, match=rf"must be 1 to 7 .* got {n_components}"):
            build_bank(Wide(), pairs[:1], [n_components, None], {})


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


class Stopped(KeyboardInterrupt):
    """How an interruption arrives from a signal handler."""


class Interrupted(LinearEncoder):
    """An encoder that stops at its ``last`` call; it counts them."""

    def __init__(self, last=None):
        super().__init__()
        self.calls, self.last = 0, last

    def __call__(self, magnitude):
        self.calls += 1
        if self.calls == self.last:
            raise Stopped
        return super().__call__(magnitude)


@pytest.mark.parametrize("stop", [2, 4, 5, 6])
def test_interrupted_bank_continues_and_equals_an_uninterrupted_one(pairs, tmp_path, stop):
    options = {"components": [3, 6], "description": {}, "batch_size": 2}
    expected = build_bank(LinearEncoder(), pairs, **options)
    unfinished = Unfinished(tmp_path / "key.unfinished")
    with pytest.raises(Stopped):
        build_bank(Interrupted(stop), pairs, **options, unfinished=unfinished)
    encoder = Interrupted()
    built = build_bank(encoder, pairs, **options, unfinished=unfinished)
    assert encoder.calls == (6 if stop < 4 else 7 - stop)  # three batches in each of two passes
    for level, bank in expected.levels.items():
        for name in ("mean", "components", "entries"):
            assert torch.equal(getattr(built.levels[level], name), getattr(bank, name))


def test_killed_bank_continues_from_what_was_on_the_disk(pairs, tmp_path, monkeypatch):
    """A killed process saves nothing at its end: the moments were saved after the first pass."""
    options = {"components": [3, 6], "description": {}, "batch_size": 2}
    unfinished = Unfinished(tmp_path / "key.unfinished")
    real, saves = Unfinished.save, []

    def first_only(self, tensors):
        saves.append(tensors)
        if len(saves) == 1:
            real(self, tensors)

    monkeypatch.setattr(Unfinished, "save", first_only)
    with pytest.raises(Stopped):
        build_bank(Interrupted(6), pairs, **options, unfinished=unfinished)
    encoder = Interrupted()
    built = build_bank(encoder, pairs, **options, unfinished=unfinished)
    assert encoder.calls == 3  # the second pass alone
    expected = build_bank(LinearEncoder(), pairs, **options)
    assert torch.equal(built.levels[2].entries, expected.levels[2].entries)


def test_bank_refuses_an_encoder_whose_output_is_not_finite(pairs):
    class Overflowing(LinearEncoder):
        def __call__(self, magnitude):
            first, second = super().__call__(magnitude)
            return first, second / 0

    with pytest.raises(InputError, match="output must be finite, got NaN or infinity at level 2"):
        build_bank(Overflowing(), pairs, [3, 6], {})


def test_bank_of_images_that_turn_out_bad_is_made_of_the_rest(pairs):
    class SomeBad(list):
        """Images whose number is only known once they have been read."""

        def __len__(self):
            return super().__len__() + 2

    built = build_bank(LinearEncoder(), SomeBad(pairs[:3]), [3, 6], {})
    assert built.levels[1].n_positives == 3
    assert len(built.levels[1].entries) == 6
