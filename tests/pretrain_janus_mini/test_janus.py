from pathlib import Path

import torch
import yaml

RECIPE = Path(__file__).parents[2] / "experiments" / "pretrain_janus_mini"


def test_encode_and_answer_match_the_whole_model(recipe, trained, generator):
    from transformers import JanusForConditionalGeneration

    from mrisem.prior.image.encoder import load_encoder

    janus = recipe("janus")
    model = JanusForConditionalGeneration.from_pretrained(trained / "janus_mini").eval()
    images = torch.rand(2, 48, 48, generator=generator())
    image_token = model.config.image_token_id
    ids = torch.tensor([[1, 4, *[image_token] * 36, 5, 7]]).expand(2, -1)
    with torch.no_grad():
        pixels = load_encoder(str(trained / "janus_mini"), [1]).prepare(images)
        whole = model(input_ids=ids, pixel_values=pixels).logits[:, [-2, -1]]
        tokens, levels = janus.encode(model, images)
        assert len(levels) == 3  # embeddings, and two layers
        norm = model.model.vision_model.post_layernorm
        torch.testing.assert_close(tokens, norm(levels[2]))
        last = torch.tensor([[38, 39]]).expand(2, -1)
        torch.testing.assert_close(janus.answer(model, tokens, ids, last), whole)


def test_answers_leave_the_ambiguous_out(recipe):
    questions = recipe("questions")
    error = torch.tensor([0.0, 0.02, 0.2, 0.2, 0.2, 0.2, 0.08])
    low = torch.tensor([False, False, True, True, True, True, False])
    kind = torch.tensor([0, 1, 1, 3, 4, 6, 6])
    contrast = torch.tensor([0, 1, 2, 3, 4, 0, 0])
    pairs = recipe("pairs").Pairs(*[error] * 3, kind, contrast, error, low)
    found = dict(zip(questions.QUESTIONS, questions.answers_of(pairs).T.tolist(), strict=True))
    none = questions.IGNORE
    assert found["quality"] == [0, none, 1, 1, 1, 1, none]
    assert found["artefact"] == [none, none, 1, 0, none, none, none]
    assert found["kind"] == [0, none, 1, 2, 3, none, none]
    assert found["contrast"] == [0, 1, 2, 3, 4, 0, 0]
    assert found["anatomy"] == [0, 0, 0, 1, 1, 0, 0]


def test_prompts_hold_the_wordings_that_the_package_asks():
    shipped = yaml.safe_load((RECIPE / "prompts.yaml").read_text())
    conf = Path(__file__).parents[2] / "conf" / "prompt"
    for file, question in (("high_low_quality", "quality"), ("blurred_aliasing", "artefact")):
        asked = yaml.safe_load((conf / f"{file}.yaml").read_text())["wordings"]
        assert set(asked) <= set(shipped[question]["wordings"])


def test_questions_that_share_an_image_are_answered_as_if_alone(recipe, trained, generator):
    from transformers import JanusForConditionalGeneration, JanusProcessor

    janus, questions = recipe("janus"), recipe("questions")
    folder = trained / "janus_mini"
    model = JanusForConditionalGeneration.from_pretrained(folder).eval()
    asked = questions.tokenise(JanusProcessor.from_pretrained(folder))
    error, brain = torch.tensor([0.0, 0.2]), torch.tensor([0, 1])
    images, kind = torch.rand(2, 48, 48, generator=generator()), torch.tensor([0, 1])
    pairs = recipe("pairs").Pairs(*[images] * 3, kind, brain, error, error > 0.1)
    drawn = questions.draw_sequences(asked, pairs, generator(1))
    with torch.no_grad():
        tokens, _ = janus.encode(model, images)
        together = janus.answer(model, tokens, drawn.ids, drawn.positions, drawn.turns)
        for row in range(2):
            for turn in range(1, int(drawn.turns[row].max()) + 1):
                kept = (drawn.turns[row] == 0) | (drawn.turns[row] == turn)
                own, at = drawn.ids[row][kept][None], slice(2 * turn - 2, 2 * turn)
                n = own.shape[1]
                last = torch.tensor([[n - 3, n - 2]])
                alone = janus.answer(model, tokens[row : row + 1], own, last)
                torch.testing.assert_close(together[row, at], alone[0])
                assert drawn.labels[row, at].tolist() == own[0, -2:].tolist()


def test_every_image_is_asked_all_that_it_can_answer(recipe, trained, generator):
    from transformers import JanusProcessor

    questions = recipe("questions")
    asked = questions.tokenise(JanusProcessor.from_pretrained(trained / "janus_mini"))
    error = torch.tensor([0.02, 0.2])  # too slight for questions about it; aliased
    kind = torch.tensor([1, 1])
    pairs = recipe("pairs").Pairs(*[error] * 3, kind, 0 * kind, error, error > 0.1)
    labels = questions.draw_sequences(asked, pairs, generator()).labels[:, ::2].tolist()
    word = {name: asked.answers[k] for k, name in enumerate(questions.QUESTIONS)}
    low, aliasing = word["quality"][1], word["artefact"][1]
    assert sorted(labels[0][:2]) == sorted([word["contrast"][0], word["anatomy"][0]])
    assert set(labels[0][2:]) == {questions.IGNORE}
    assert labels[1].count(low) == 1 + questions.MORE_WORDINGS
    assert labels[1].count(aliasing) == 2 + questions.MORE_WORDINGS  # artefact, and kind


def test_read_loss_is_zero_of_right_answers_alone(recipe):
    losses, questions = recipe("losses"), recipe("questions")
    error, kind = torch.tensor([0.02, 0.2, 0.0]), torch.tensor([1, 1, 0])
    pairs = recipe("pairs").Pairs(*[error] * 3, kind, 0 * kind, error, error > 0.1)
    right = questions.answers_of(pairs)
    columns = [
        100.0 * torch.nn.functional.one_hot(answers.clamp_min(0), n)
        for answers, n in zip(right.T, losses.N_ANSWERS, strict=True)
    ]
    read = torch.cat(columns, 1)
    assert losses.read_loss(read, pairs) < 1e-6
    assert losses.read_loss(-read, pairs) > 10
    assert losses.error_loss((error + losses.LEAST).log()[:, None], pairs) == 0
