import pytest
import torch

from mrisem.prior.image.bank import EmbeddingBank
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
