import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from mrisem.errors import InputError
from mrisem.prior import cache
from mrisem.prior.cache import Unfinished, content_key, load_or_build
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bank_that_is_not_finite_is_refused_when_built_and_rebuilt_when_loaded(
    bank, tmp_path, value
):
    path = tmp_path / "bank.safetensors"
    entries = bank.levels[1].entries.clone()
    entries[1, 2] = value
    bad = EmbeddingBank({1: replace(bank.levels[1], entries=entries)})
    with pytest.raises(InputError, match=r"must be finite, got NaN or infinity in 1\.entries"):
        load_or_build(path, EmbeddingBank.load, lambda: bad)
    assert not path.exists()
    bad.save(path)
    with pytest.warns(UserWarning, match=r"infinity in 1\.entries.*built anew"):
        again = load_or_build(path, EmbeddingBank.load, lambda: bank)
    assert torch.equal(again.levels[1].entries, bank.levels[1].entries)


def test_leftovers_of_killed_processes_are_removed_and_other_banks_stay(bank, tmp_path):
    path, other = tmp_path / "bank.safetensors", tmp_path / "other.safetensors"
    bank.save(other)
    (tmp_path / ".0123.partial").write_bytes(b"half a bank")
    load_or_build(path, EmbeddingBank.load, lambda: bank)
    names = {p.name for p in tmp_path.iterdir()}
    assert not [name for name in names if name.endswith(".partial")]
    assert {"bank.safetensors", "bank.json", "other.safetensors", "other.json"} <= names


class Stopped(KeyboardInterrupt):
    """How an interruption arrives from a signal handler."""


def test_unfinished_state_is_kept_at_an_interruption_and_now_and_then(tmp_path, monkeypatch):
    unfinished = Unfinished(tmp_path / "key.unfinished")
    assert unfinished.read() == {}
    state = {"done": torch.tensor(0)}

    def work(stop):
        with unfinished.kept(lambda: state) as step:
            for n in range(1, 6):
                if n == stop:
                    raise Stopped
                state["done"] = torch.tensor(n)
                step()

    with pytest.raises(Stopped):
        work(stop=3)
    assert int(unfinished.read()["done"]) == 2
    unfinished.remove()
    work(stop=None)
    assert unfinished.read() == {}  # a minute has not passed
    monkeypatch.setattr(cache, "SAVE_EVERY", 0.0)
    work(stop=None)
    assert int(unfinished.read()["done"]) == 5


def test_damaged_state_is_left_alone_with_a_warning(tmp_path):
    path = tmp_path / "key.unfinished"
    path.write_bytes(b"no tensors")
    with pytest.warns(UserWarning, match=r"key\.unfinished must be a whole state"):
        assert Unfinished(path).read() == {}


def test_without_a_file_no_state_is_kept():
    unfinished = Unfinished()
    unfinished.save({"done": torch.tensor(1)})
    unfinished.remove()
    assert unfinished.read() == {}
