import torch

from mrisem.adaptation import questions
from mrisem.adaptation.model import answer, encode
from mrisem.adaptation.pairs import Pairs


def test_encode_and_answer_match_the_whole_model(trained, generator):
    from transformers import JanusForConditionalGeneration

    from mrisem.prior.image.encoder import load_encoder

    model = JanusForConditionalGeneration.from_pretrained(trained / "janus_mini").eval()
    images = torch.rand(2, 48, 48, generator=generator())
    image_token = model.config.image_token_id
    ids = torch.tensor([[1, 4, *[image_token] * 36, 5, 7]]).expand(2, -1)
    with torch.no_grad():
        pixels = load_encoder(str(trained / "janus_mini"), [1]).prepare(images)
        whole = model(input_ids=ids, pixel_values=pixels).logits[:, [-2, -1]]
        tokens, levels = encode(model, images)
        assert len(levels) == 3  # embeddings, and two layers
        norm = model.model.vision_model.post_layernorm
        torch.testing.assert_close(tokens, norm(levels[2]))
        last = torch.tensor([[38, 39]]).expand(2, -1)
        torch.testing.assert_close(answer(model, tokens, ids, last), whole)


def test_questions_that_share_an_image_are_answered_as_if_alone(trained, generator):
    from transformers import JanusForConditionalGeneration, JanusProcessor

    folder = trained / "janus_mini"
    model = JanusForConditionalGeneration.from_pretrained(folder).eval()
    asked = questions.tokenise(JanusProcessor.from_pretrained(folder))
    error, brain = torch.tensor([0.0, 0.2]), torch.tensor([0, 1])
    images, kind = torch.rand(2, 48, 48, generator=generator()), torch.tensor([0, 1])
    pairs = Pairs(*[images] * 3, kind, brain, error, error > 0.1)
    drawn = questions.draw_sequences(asked, pairs, generator(1))
    with torch.no_grad():
        tokens, _ = encode(model, images)
        together = answer(model, tokens, drawn.ids, drawn.positions, drawn.turns)
        for row in range(2):
            for turn in range(1, int(drawn.turns[row].max()) + 1):
                kept = (drawn.turns[row] == 0) | (drawn.turns[row] == turn)
                own, at = drawn.ids[row][kept][None], slice(2 * turn - 2, 2 * turn)
                n = own.shape[1]
                last = torch.tensor([[n - 3, n - 2]])
                alone = answer(model, tokens[row : row + 1], own, last)
                torch.testing.assert_close(together[row, at], alone[0])
                assert drawn.labels[row, at].tolist() == own[0, -2:].tolist()
