import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn
from torch._subclasses import FakeTensorMode


def test_train_repeats_bit_for_bit_when_stopped_and_resumed(train, trained, tmp_path):
    assert "stopped after step 2" in train(tmp_path, "--stop-after", "2")
    train(tmp_path)
    files = sorted(file.name for file in (tmp_path / "janus_mini").iterdir())
    assert "model.safetensors" in files
    for name in files:
        whole, resumed = trained / "janus_mini" / name, tmp_path / "janus_mini" / name
        assert whole.read_bytes() == resumed.read_bytes(), name


def test_train_writes_results_of_every_question_and_of_the_gradient(trained):
    results = yaml.safe_load((trained / "results.json").read_text())
    assert {"quality", "contrast", "anatomy"} <= results.keys()
    assert all(score["n"] > 0 for score in results.values())
    answered = [score for name, score in results.items() if not name.startswith("cosine")]
    assert all(0 <= score["accuracy"] <= 1 for score in answered)
    cosines = [s["mean"] for name, s in results.items() if name.startswith("cosine")]
    assert cosines
    assert all(-1 <= cosine <= 1 for cosine in cosines)


def test_train_exports_a_checkpoint_that_the_encoder_loads(trained, generator):
    from mrisem.prior.image.encoder import load_encoder

    encoder = load_encoder(str(trained / "janus_mini"), [1, 2])
    assert encoder(torch.rand(1, 40, 40, generator=generator()))[1].shape == (1, 36, 96)


def test_train_goes_on_from_a_checkpoint_whose_first_layer_stays(train, trained, tmp_path):
    train(tmp_path, "--start", str(trained / "janus_mini"), "--step", "3")
    before, after = (
        load_file(folder / "janus_mini" / "model.safetensors") for folder in (trained, tmp_path)
    )
    changed = {name for name in before if not before[name].equal(after[name])}
    assert not any(".embeddings." in name or "encoder.layers.0." in name for name in changed)
    assert any("vision_model.encoder.layers.1." in name for name in changed)
    assert any("language_model" in name for name in changed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "3"], "--step needs --start"),
        (["--start", "nowhere"], "found no weights in nowhere"),
        (["--start", "CHECKPOINT", "--step", "99"], "--step must be at most 5"),
    ],
)
def test_train_names_what_is_wrong_with_the_start(train, trained, tmp_path, arguments, message):
    checkpoint = str(trained / "janus_mini")
    with pytest.raises(AssertionError, match=message):
        train(tmp_path, *(a.replace("CHECKPOINT", checkpoint) for a in arguments))


def test_train_does_not_go_on_from_another_start(train, trained):
    with pytest.raises(AssertionError, match="another configuration or --start"):
        train(trained, "--start", str(trained / "janus_mini"), "--step", "4")


def test_training_step_mixes_no_devices(recipe, trained, phantom, generator):
    """Fake tensors compute nothing, but refuse to mix devices as a GPU does: none is needed."""
    from transformers import JanusForConditionalGeneration, JanusProcessor

    janus, losses, questions = recipe("janus"), recipe("losses"), recipe("questions")
    model = JanusForConditionalGeneration.from_pretrained(trained / "janus_mini")
    asked = questions.tokenise(JanusProcessor.from_pretrained(trained / "janus_mini"))
    contrast = torch.arange(4)
    slices = recipe("pool").Slices(phantom(4, 48), contrast, -torch.ones_like(contrast))
    pairs = recipe("degrade").make_pairs(slices, 48, generator())
    drawn = questions.draw_sequences(asked, pairs, generator())
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                module._parameters[name] = nn.Parameter(parameter.detach().to("cuda"))
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to("cuda")
        tokens, hidden = janus.encode(model, pairs.image.to("cuda"))
        width, n_answers = tokens.shape[-1], sum(losses.N_ANSWERS)
        read, error, dense, residual = (
            nn.Linear(width, n, device="cuda") for n in (n_answers, 1, 5, 64)
        )
        logits = janus.answer(model, tokens, drawn.ids, drawn.positions, drawn.turns)
        found = [
            losses.read_loss(read(tokens.mean(1)), pairs),
            losses.error_loss(error(tokens.mean(1)), pairs),
            losses.dense_loss(dense(tokens), pairs, 48, 8),
            losses.residual_loss(residual(hidden[2]), pairs, 48, 8),
            losses.word_loss(logits, drawn.labels),
        ]
    assert {loss.device.type for loss in found} == {"cuda"}
