import pytest
import torch

from mrisem.prior.image.prior import SemanticPrior
from mrisem.prior.jitter import Jitter


def test_bank_entry_has_similarity_one_with_itself(linear, bank, pairs):
    prior = SemanticPrior(linear, bank, level_weights=(0.5, 1.0))
    similarity = prior.similarities(pairs[2][0][None])
    for s in similarity.values():
        assert s.shape == (1, 10)
        assert s[0, 2].item() == pytest.approx(1, abs=1e-5)


def test_semantic_loss_is_the_weighted_sum_of_levels(linear, bank, pairs):
    prior = SemanticPrior(linear, bank, level_weights=(0.5, 2.0))
    losses = prior.losses(pairs[0][1][None])
    total = 0.5 * losses["semantic_1"] + 2 * losses["semantic_2"]
    torch.testing.assert_close(losses["semantic"], total)


def test_prior_jitter_averages_embeddings(linear, bank, pairs):
    image = pairs[0][0][None]
    still = SemanticPrior(linear, bank, (0.5, 1.0), jitter=Jitter(3, 0, 0.0))
    plain = SemanticPrior(linear, bank, (0.5, 1.0))
    torch.testing.assert_close(still.losses(image), plain.losses(image))
    moved = SemanticPrior(linear, bank, (0.5, 1.0), jitter=Jitter(3, 2, 0.0, seed=1))
    assert not torch.equal(moved.losses(image)["semantic"], plain.losses(image)["semantic"])
