import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from sklearn.decomposition import PCA

from mrisem.errors import InputError
from mrisem.prior.cache import load_or_build
from mrisem.prior.image.bank import EmbeddingBank, bank_key
from mrisem.prior.image.building import Pooled, build_bank
from mrisem.prior.image.prior import Jitter, SemanticPrior


class LinearEncoder:
    """Tokens are fixed linear maps of 4 x 4 patches, at two levels."""

    levels = (1, 2)
    width = 6
    fingerprint = "linear"

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.weights = [torch.randn(16, 6, generator=generator) for _ in self.levels]

    def __call__(self, magnitude):
        patches = magnitude.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3).flatten(1, 2)
        return tuple(patches @ w for w in self.weights)


@pytest.fixture
def pairs():
    generator = torch.Generator().manual_seed(0)
    return [(*torch.rand(2, 8, 8, generator=generator), None) for _ in range(5)]


@pytest.fixture
def bank(pairs):
    return build_bank(LinearEncoder(), pairs, [3, 6], {"made": "of this"}, progress=False)


def test_bank_projects_as_scikit_learn_does(bank, pairs):
    encoder = LinearEncoder()
    images = torch.stack([p[0] for p in pairs] + [p[1] for p in pairs])
    raw = encoder(images)[0]
    pca = PCA(3).fit(raw.reshape(-1, 6).numpy())
    expected = torch.from_numpy(pca.transform(raw.reshape(-1, 6).numpy())).reshape(10, 4, 3)
    expected = torch.nn.functional.normalize(expected, dim=-1)
    level = bank.levels[1]
    got = level.entries.reshape(10, 4, 3)
    signs = (got * expected).sum((0, 1)).sign()  # the sign of a component is free
    torch.testing.assert_close(got * signs, expected, atol=1e-4, rtol=0)
    assert level.explained_variance == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-5)
    assert level.n_positives == 5


def test_bank_entry_has_similarity_one_with_itself(bank, pairs):
    prior = SemanticPrior(LinearEncoder(), bank, level_weights=(0.5, 1.0))
    similarity = prior.similarities(pairs[2][0][None])
    for s in similarity.values():
        assert s.shape == (1, 10)
        assert s[0, 2].item() == pytest.approx(1, abs=1e-5)


def test_semantic_loss_is_the_weighted_sum_of_levels(bank, pairs):
    prior = SemanticPrior(LinearEncoder(), bank, level_weights=(0.5, 2.0))
    losses = prior.losses(pairs[0][1][None])
    total = 0.5 * losses["semantic_1"] + 2 * losses["semantic_2"]
    torch.testing.assert_close(losses["semantic"], total)


def test_bank_round_trip(bank, tmp_path):
    path = tmp_path / "bank.safetensors"
    bank.save(path)
    loaded = EmbeddingBank.load(path)
    assert loaded.description == bank.description
    for level in bank.levels:
        assert torch.equal(loaded.levels[level].entries, bank.levels[level].entries)
        assert loaded.levels[level].n_positives == 5
    assert [p.suffix for p in sorted(tmp_path.iterdir())] == [".json", ".safetensors"]


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_bank_damage_is_detected(bank, tmp_path, damage):
    path = tmp_path / "bank.safetensors"
    bank.save(path)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-5] ^= 1
    path.write_bytes(content[:-100] if damage == "truncated" else content)
    with pytest.raises(ValueError, match="damaged"):
        EmbeddingBank.load(path)


def test_bank_key_depends_on_every_fact():
    key = bank_key({"a": 1, "b": [1, 2]})
    assert key == bank_key({"b": [1, 2], "a": 1})
    assert key != bank_key({"a": 1, "b": [1, 3]})


def test_bank_refuses_bad_requests(pairs):
    with pytest.raises(InputError, match="at least one auxiliary slice"):
        build_bank(LinearEncoder(), [], [3, 3], {}, progress=False)
    with pytest.raises(InputError, match="must be 1 to 6"):
        build_bank(LinearEncoder(), pairs, [3, 7], {}, progress=False)
    with pytest.raises(InputError, match="one number for each of the levels"):
        build_bank(LinearEncoder(), pairs, [3], {}, progress=False)


def test_prior_refuses_the_wrong_number_of_weights(bank):
    with pytest.raises(InputError, match="level_weights"):
        SemanticPrior(LinearEncoder(), bank, level_weights=(1.0,))


def test_bank_does_not_depend_on_the_batch_size(bank, pairs):
    other = build_bank(LinearEncoder(), pairs, [3, 6], {}, batch_size=2, progress=False)
    for level, expected in bank.levels.items():
        torch.testing.assert_close(other.levels[level].entries, expected.entries)


def test_bank_of_images_of_several_sizes(pairs):
    class AnySize(LinearEncoder):
        def __call__(self, magnitude):
            return super().__call__(magnitude[:, :8, :8])

    mixed = [pairs[0], (torch.ones(12, 9), torch.ones(12, 9), None), pairs[2]]
    built = build_bank(AnySize(), mixed, [3, 6], {}, progress=False)
    assert len(built.levels[1].entries) == 6


def test_bank_without_pca_keeps_normalised_tokens(pairs):
    built = build_bank(LinearEncoder(), pairs, [None, 3], {}, progress=False)
    raw = LinearEncoder()(pairs[0][0][None])[0]
    expected = torch.nn.functional.normalize(raw, dim=-1).flatten()
    torch.testing.assert_close(built.levels[1].entries[0], expected)


def test_bank_pooled_compares_mean_tokens(pairs):
    encoder = Pooled(LinearEncoder())
    built = build_bank(encoder, pairs, [None, None], {}, progress=False)
    prior = SemanticPrior(encoder, built, level_weights=(1.0, 1.0))
    a, b = (LinearEncoder()(pairs[i][0][None])[0].mean(1)[0] for i in (0, 1))
    expected = torch.nn.functional.cosine_similarity(a, b, dim=0)
    torch.testing.assert_close(prior.similarities(pairs[0][0][None])[1][0, 1], expected)


def test_bank_limit_keeps_the_first_of_each_side(bank):
    limited = bank.limit(2, 3).levels[1]
    full = bank.levels[1].entries
    assert limited.n_positives == 2
    assert torch.equal(limited.entries, torch.cat([full[:2], full[5:8]]))
    with pytest.raises(InputError, match="n_negatives must be 1 to 5, got 6"):
        bank.limit(None, 6)


def test_bank_separation_finds_sides_that_differ():
    images = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    shifted = [(p + 5 * torch.eye(8), n, None) for p, n in images]
    built = build_bank(LinearEncoder(), shifted, [3, 6], {}, progress=False)
    assert built.levels[1].separation() == 1
    alike = [(p, p, None) for p, _ in images]
    built = build_bank(LinearEncoder(), alike, [3, 6], {}, progress=False)
    assert built.levels[1].separation() < 0.6


def test_prior_jitter_averages_embeddings(bank, pairs):
    image = pairs[0][0][None]
    still = SemanticPrior(LinearEncoder(), bank, (0.5, 1.0), jitter=Jitter(3, 0, 0.0))
    plain = SemanticPrior(LinearEncoder(), bank, (0.5, 1.0))
    torch.testing.assert_close(still.losses(image), plain.losses(image))
    moved = SemanticPrior(LinearEncoder(), bank, (0.5, 1.0), jitter=Jitter(3, 2, 0.0, seed=1))
    assert not torch.equal(moved.losses(image)["semantic"], plain.losses(image)["semantic"])


def test_jitter_treats_each_image_as_if_alone_and_each_iteration_anew():
    images = torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(0))
    jitter = Jitter(copies=2, max_shift=2, noise=0.05)
    together = jitter(images, 4)
    alone = torch.cat([jitter(image[None], 4) for image in images])
    torch.testing.assert_close(together, alone)
    assert not torch.equal(together, jitter(images, 5))


def test_jitter_without_noise_only_shifts():
    image = torch.rand(1, 8, 6, generator=torch.Generator().manual_seed(0))
    moved = Jitter(copies=5, max_shift=2, noise=0.0)(image, 0)
    shifts = range(-2, 3)
    every = [image[0].roll((a, b), (0, 1)) for a in shifts for b in shifts]
    assert all(any(torch.equal(m, e) for e in every) for m in moved)
    assert len({tuple(m.flatten().tolist()) for m in moved}) > 1


def test_bank_refuses_sides_that_were_not_prepared_alike():
    pairs = [(torch.ones(8, 8), torch.ones(8, 9), None)]
    with pytest.raises(InputError, match="prepared alike"):
        build_bank(LinearEncoder(), pairs, [3, 6], {}, progress=False)


@pytest.mark.parametrize("n_positives", [0, 10])
def test_prior_refuses_a_bank_of_one_side(bank, n_positives):
    one_sided = {k: replace(v, n_positives=n_positives) for k, v in bank.levels.items()}
    with pytest.raises(InputError, match="positives and negatives"):
        SemanticPrior(LinearEncoder(), EmbeddingBank(one_sided, {}), (0.5, 1.0))


def test_bank_file_is_built_once_by_two_that_want_it(bank, tmp_path):
    path = tmp_path / "bank.safetensors"
    builds = []

    def build():
        builds.append(1)
        time.sleep(0.2)
        return bank

    def want():
        return load_or_build(path, EmbeddingBank.load, build)

    with ThreadPoolExecutor(2) as pool:
        banks = [future.result() for future in [pool.submit(want), pool.submit(want)]]
    assert len(builds) == 1
    assert all(torch.equal(b.levels[1].entries, bank.levels[1].entries) for b in banks)


def test_bank_file_damage_is_repaired_with_a_warning(bank, tmp_path):
    path = tmp_path / "bank.safetensors"
    bank.save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.warns(UserWarning, match="built anew"):
        load_or_build(path, EmbeddingBank.load, lambda: bank)
    assert torch.equal(EmbeddingBank.load(path).levels[1].entries, bank.levels[1].entries)
