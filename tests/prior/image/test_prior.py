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


def test_prior_states_each_images_mean_similarity_to_both_sides(linear, bank, pairs):
    images = torch.stack([pairs[0][0], pairs[1][1], pairs[3][0]])
    losses = SemanticPrior(linear, bank, (0.5, 1.0)).losses(images)
    for level, raw in zip(bank.levels, linear(images), strict=True):
        one = bank.levels[level]
        tokens = (raw - one.mean) @ one.components
        tokens = tokens / tokens.norm(dim=-1, keepdim=True)
        entries = one.entries.reshape(10, 4, -1)
        cosines = torch.tensor([[(t * e).sum(-1).mean() for e in entries] for t in tokens])
        torch.testing.assert_close(losses[f"positives_{level}"], cosines[:, :5].mean(1))
        torch.testing.assert_close(losses[f"negatives_{level}"], cosines[:, 5:].mean(1))


def test_signature_of_the_banks_images_is_that_of_its_entries(linear, bank, pairs):
    prior = SemanticPrior(linear, bank, (0.5, 1.0))
    of_entries = prior.bank_signature()
    for side in (0, 1):
        of_images = prior.signature(torch.stack([pair[side] for pair in pairs]))
        assert of_images.keys() == of_entries.keys() == {"1", "2"}
        for level, signature in of_images.items():
            torch.testing.assert_close(of_entries[level][side], signature)


def test_prior_jitter_is_another_one_at_each_iteration_from_zero(linear, bank, pairs):
    image = pairs[0][0][None]
    prior = SemanticPrior(linear, bank, (0.5, 1.0), jitter=Jitter(1, 3, 0.0))
    torch.testing.assert_close(prior.losses(image), prior.losses(image, 0), rtol=0, atol=0)
    torch.testing.assert_close(
        prior.similarities(image), prior.similarities(image, 0), rtol=0, atol=0
    )
    assert len({float(prior.losses(image, i)["semantic"]) for i in range(5)}) > 2


def test_prior_refuses_weights_and_encoders_of_another_number_of_levels(linear, bank, pairs):
    class OneLevel(type(linear)):
        def __call__(self, magnitude):
            return super().__call__(magnitude)[:1]

    image = pairs[0][0][None]
    with pytest.raises(ValueError, match=r"argument 2 is (shorter|longer)"):
        SemanticPrior(linear, bank, (1.0,)).losses(image)
    prior = SemanticPrior(OneLevel(), bank, (0.5, 1.0))
    for embed in (prior.signature, prior.losses):
        with pytest.raises(ValueError, match=r"argument 2 is (shorter|longer)"):
            embed(image)
