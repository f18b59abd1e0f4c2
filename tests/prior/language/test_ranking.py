import pytest
import torch
from torch.nn.functional import normalize

from mrisem.errors import InputError
from mrisem.prior.language.bank import ranking_shares


def shared_direction(n=8, width=64):
    """Two clusters that point nearly the same way: cosines .9986, .9974 within, .9955 across."""
    generator = torch.Generator().manual_seed(0)
    shared, apart = normalize(torch.randn(2, width, generator=generator), dim=1)
    noise = torch.randn(2, n, width, generator=generator) / width**0.5
    return shared + 0.037 * noise[0], shared + 0.065 * apart + 0.051 * noise[1]


def test_ranking_centred_is_right_where_released_is_flat():
    sides = shared_direction()
    assert ranking_shares(*sides, center=True) == (1.0, 1.0)
    alone, pair = ranking_shares(*sides, center=False)
    assert alone < 0.5  # the handicap of leaving one out
    assert pair > 0.9


def plain_loss(response, positives, negatives, center):
    mean = sum(positives + negatives) / len(positives + negatives) if center else 0 * response

    def cosine(entry):
        return torch.cosine_similarity(response - mean, entry - mean, dim=0)

    wanted = sum((cosine(entry) / 0.1).exp() for entry in positives)
    unwanted = sum((cosine(entry) / 0.7).exp() for entry in negatives)
    return -(wanted / (wanted + unwanted)).log()


@pytest.mark.parametrize("center", [True, False])
def test_ranking_shares_equal_plain_counts(center):
    generator = torch.Generator().manual_seed(5)
    p, n = torch.randn(2, 4, 6, generator=generator).double() + 1
    one, pair = 0, 0
    for i in range(4):
        for j in range(4):
            fewer = [*p[:i], *p[i + 1 :]], [*n[:j], *n[j + 1 :]]
            bank = fewer[0], [*n], center
            other = [*p], fewer[1], center
            one += int(plain_loss(p[i], *bank) < plain_loss(n[j], *other))
            pair += int(plain_loss(p[i], *fewer, center) < plain_loss(n[j], *fewer, center))
    assert ranking_shares(p.float(), n.float(), center) == (one / 16, pair / 16)
    assert 0 < one < 16


def test_ranking_refuses_a_single_embedding():
    with pytest.raises(InputError, match="at least 2 embeddings on each side, got 1 and 3"):
        ranking_shares(torch.ones(1, 4), torch.ones(3, 4), True)
