import math
from dataclasses import replace

import pytest
import torch

from mrisem.prior.image.bank import EmbeddingBank, LevelBank
from mrisem.prior.image.building import build_bank


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


def test_bank_separation_finds_sides_that_differ(linear):
    images = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    shifted = [(p + 5 * torch.eye(8), n, None) for p, n in images]
    built = build_bank(linear, shifted, [3, 6], {})
    assert built.levels[1].separation() == 1
    alike = [(p, p, None) for p, _ in images]
    built = build_bank(linear, alike, [3, 6], {})
    assert built.levels[1].separation() < 0.6


def naive_separation(positives, negatives):
    """Each entry against the means of the other slices' entries, by loops."""
    right = []
    for index in range(len(positives)):
        others = [i for i in range(len(positives)) if i != index]
        centroids = positives[others].mean(0), negatives[others].mean(0)
        for entry, centroid, opposite in (
            (positives[index], *centroids),
            (negatives[index], *centroids[::-1]),
        ):
            right.append((entry - centroid).norm() < (entry - opposite).norm())
    return sum(right) / len(right)


def level_of(positives, negatives, explained_variance=1.0):
    n, width = positives.shape
    entries = torch.cat([positives, negatives])
    return LevelBank(torch.zeros(width), torch.eye(width), entries, n, explained_variance)


def test_bank_separation_leaves_each_slice_out_of_both_centroids():
    generator = torch.Generator().manual_seed(0)
    for n in (2, 3, 5):
        for _ in range(20):
            positives, negatives = torch.randn(2, n, 6, generator=generator)
            positives, expected = positives + 0.5, naive_separation(positives + 0.5, negatives)
            assert level_of(positives, negatives).separation() == pytest.approx(float(expected))
    assert math.isnan(level_of(positives[:1], negatives[:1]).separation())


def test_bank_summary_states_counts_and_shares():
    positives = torch.eye(4)[:3] + 1
    level = replace(level_of(positives, -positives, 0.8754), components=torch.eye(6)[:, :4])
    bank = EmbeddingBank({7: level}, description={})
    (line,) = bank.summary()
    assert "level 7 " in line
    assert "3 + 3 entries, 4 of 6 components, 87.5 % of the variance" in line
    assert "100.0 % nearest to their own side" in line
