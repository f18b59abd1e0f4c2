from pathlib import Path

import torch
import yaml

from mrisem.adaptation import questions
from mrisem.adaptation.pairs import Pairs


def test_answers_leave_the_ambiguous_out():
    error = torch.tensor([0.0, 0.02, 0.2, 0.2, 0.2, 0.2, 0.08])
    low = torch.tensor([False, False, True, True, True, True, False])
    kind = torch.tensor([0, 1, 1, 3, 4, 6, 6])
    contrast = torch.tensor([0, 1, 2, 3, 4, 0, 0])
    pairs = Pairs(*[error] * 3, kind, contrast, error, low)
    found = dict(zip(questions.QUESTIONS, questions.answers_of(pairs).T.tolist(), strict=True))
    none = questions.IGNORE
    assert found["quality"] == [0, none, 1, 1, 1, 1, none]
    assert found["artefact"] == [none, none, 1, 0, none, none, none]
    assert found["kind"] == [0, none, 1, 2, 3, none, none]
    assert found["contrast"] == [0, 1, 2, 3, 4, 0, 0]
    assert found["anatomy"] == [0, 0, 0, 1, 1, 0, 0]


def test_prompts_hold_the_wordings_that_the_package_asks():
    conf = Path(__file__).parents[2] / "conf" / "prompt"
    for file, question in (("high_low_quality", "quality"), ("blurred_aliasing", "artefact")):
        asked = yaml.safe_load((conf / f"{file}.yaml").read_text())["wordings"]
        assert set(asked) <= set(questions.PROMPTS[question]["wordings"])


def test_every_image_is_asked_all_that_it_can_answer(processor, generator):
    asked = questions.tokenise(processor)
    error = torch.tensor([0.02, 0.2])  # too slight for questions about it; aliased
    kind = torch.tensor([1, 1])
    pairs = Pairs(*[error] * 3, kind, 0 * kind, error, error > 0.1)
    labels = questions.draw_sequences(asked, pairs, generator()).labels[:, ::2].tolist()
    word = {name: asked.answers[k] for k, name in enumerate(questions.QUESTIONS)}
    low, aliasing = word["quality"][1][0], word["artefact"][1][0]
    assert sorted(labels[0][:2]) == sorted([word["contrast"][0][0], word["anatomy"][0][0]])
    assert set(labels[0][2:]) == {questions.IGNORE}
    assert labels[1].count(low) == 1 + questions.MORE_WORDINGS
    assert labels[1].count(aliasing) == 2 + questions.MORE_WORDINGS  # artefact, and kind
