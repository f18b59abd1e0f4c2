import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mrisem.prior.cache import content_key, load_or_build
from mrisem.prior.image.bank import EmbeddingBank, LevelBank


@pytest.fixture
def bank():
    entries = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    return EmbeddingBank({1: LevelBank(torch.zeros(5), torch.eye(5)[:, :3], entries, 2, 0.9)})


def test_content_key_depends_on_every_fact():
    key = content_key({"a": 1, "b": [1, 2]})
    assert key == content_key({"b": [1, 2], "a": 1})
    assert key != content_key({"a": 1, "b": [1, 3]})


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
