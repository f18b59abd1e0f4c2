from dataclasses import replace

import pytest
import torch

from mrisem.adaptation.factors import Factors
from mrisem.adaptation.material import MadePairs, WrittenPairs, read_rows
from mrisem.adaptation.model import load_adaptable
from mrisem.adaptation.questions import tokenise
from mrisem.adaptation.scores import score
from mrisem.adaptation.training import Steps, Training
from mrisem.errors import InputError

HOW = Steps(steps=6, batch_size=2, learning_rate=0.02, save_every=2, seed=0)


@pytest.fixture
def written(pairs, processor):
    """Pairs of two subjects to train on, and of the two others."""
    rows = read_rows(pairs)
    return [
        WrittenPairs([r for r in rows if (r["subject"] in ("s0", "s1")) == side], processor)
        for side in (True, False)
    ]


def start(janus, file, how=HOW, dropout=0.3):
    base = load_adaptable(janus, torch.float32)
    factors = Factors(("vision", "aligner", "language"), 4, 8.0, dropout)
    trained = factors.attach(base.model, torch.Generator().manual_seed(0))
    facts = {"steps": how.steps, "rank": 4}
    return Training(base, trained, how, facts, file)


class KillError(Exception):
    pass


class Mortal:
    """Material that ends the process, so to say, at a step."""

    def __init__(self, material, step):
        self.material, self.left = material, step

    def draw(self, n, generator):
        self.left -= 1
        if self.left < 0:
            raise KillError
        return self.material.draw(n, generator)


def test_training_that_was_killed_continues_with_the_same_bits(janus, written, tmp_path):
    whole = start(janus, tmp_path / "whole.pt")
    whole.run(written[0])
    killed = start(janus, tmp_path / "killed.pt")
    with pytest.raises(KillError):
        killed.run(Mortal(written[0], 3))
    continued = start(janus, tmp_path / "killed.pt")
    assert continued.step == 2
    continued.run(written[0])
    assert continued.losses == whole.losses
    for name, factor in whole.factors.items():
        assert torch.equal(factor, continued.factors[name]), name
        assert "lora_A" in name or factor.abs().sum() > 0


def test_training_raises_the_likelihood_of_held_out_answers(janus, written, tmp_path):
    training = start(janus, tmp_path / "s.pt", replace(HOW, steps=16), 0.0)
    before = score(training.base, written[1].fixed(8))["all"]
    training.run(written[0])
    after = score(training.base, written[1].fixed(8))["all"]
    assert before["n"] == after["n"] == 4
    assert after["log_likelihood"] > before["log_likelihood"] + 1
    frozen = {k: v for k, v in training.base.model.named_parameters() if not v.requires_grad}
    assert all(value.grad is None for value in frozen.values())


def test_score_is_what_greedy_decoding_says(janus, written):
    """Each token alone, one after the other, from the model as it is."""
    base = load_adaptable(janus, torch.float32)
    found = score(base, written[1].fixed(1))["all"]
    (asked,) = written[1].fixed(1)
    sequences, likelihood = asked.sequences, 0.0
    model, tokens = base.model, None
    from mrisem.adaptation.model import answer, encode

    with torch.no_grad():
        tokens, _ = encode(model, asked.images)
        labels = sequences.labels[0].tolist()
        for position, label in zip(sequences.positions[0].tolist(), labels, strict=True):
            ids = sequences.ids[:, : position + 1]
            logits = answer(model, tokens, ids, torch.tensor([[position]]))[0, 0]
            likelihood += float(logits.log_softmax(0)[label])
    assert len(labels) > 2  # an answer of several tokens, and its end
    assert found["log_likelihood"] == pytest.approx(likelihood, abs=1e-4)


def test_training_of_other_facts_is_refused(janus, written, tmp_path):
    start(janus, tmp_path / "s.pt").save()
    with pytest.raises(InputError, match="another adaptation, its steps is 6, got 7"):
        start(janus, tmp_path / "s.pt", replace(HOW, steps=7))


def test_made_pairs_are_the_same_at_each_call(processor, phantom):
    pool = {48: (phantom(3, 48).half(), torch.tensor([0, 1, 4]))}
    made = MadePairs(pool, tokenise(processor))
    one, other = ([*made.fixed(6)] for _ in range(2))
    assert [len(batch.images) for batch in one] == [4, 2]
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.sequences.ids, b.sequences.ids)
        assert all(torch.equal(x, y) for x, y in zip(a.images, b.images, strict=True))
