import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from mrisem.physics.fourier import fft2c

RECIPE = Path(__file__).parents[1] / "experiments" / "pretrain_janus_mini"
MODULES = ("degrade", "janus", "pool", "questions", "evaluate", "start", "train")


def train(output, *arguments):
    command = [sys.executable, str(RECIPE / "train.py"), "--smoke", "--output", str(output)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    return output, train(output)


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPE))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def phantom(n, size):
    axis = torch.linspace(-1, 1, size)
    radius = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
    image = (radius < 0.8) * (0.6 + 0.4 * torch.cos(25 * axis)[:, None])
    return (image / image.amax()).expand(n, -1, -1)


def test_train_repeats_bit_for_bit_when_stopped_and_resumed(trained, tmp_path):
    assert "stopped after step 2" in train(tmp_path, "--stop-after", "2")
    train(tmp_path)
    files = sorted(file.name for file in (tmp_path / "janus_mini").iterdir())
    assert "model.safetensors" in files
    for name in files:
        whole, resumed = trained[0] / "janus_mini" / name, tmp_path / "janus_mini" / name
        assert whole.read_bytes() == resumed.read_bytes(), name


def test_train_writes_results_of_both_questions(trained):
    results = yaml.safe_load((trained[0] / "results.json").read_text())
    assert {"quality", "artefact"} <= results.keys()
    assert all(0 <= score["accuracy"] <= 1 and score["n"] > 0 for score in results.values())


def test_train_exports_a_checkpoint_that_the_encoder_loads(trained):
    from mrisem.prior.encoders import load_encoder

    encoder = load_encoder(str(trained[0] / "janus_mini"), [1, 2])
    assert encoder(torch.rand(1, 40, 40, generator=generator()))[1].shape == (1, 36, 32)


def test_to_pixels_equals_the_encoders_preprocessing(recipe, trained):
    from mrisem.prior.encoders import load_encoder

    encoder = load_encoder(str(trained[0] / "janus_mini"), [1])
    to_pixels = recipe("janus").to_pixels
    for shape in ((2, 48, 48), (1, 31, 70), (1, 49, 20)):
        images = torch.rand(shape, generator=generator())
        torch.testing.assert_close(to_pixels(images, 48), encoder.preprocess(images))


def test_encode_and_answer_match_the_whole_model(recipe, trained):
    from transformers import JanusForConditionalGeneration

    janus = recipe("janus")
    model = JanusForConditionalGeneration.from_pretrained(trained[0] / "janus_mini").eval()
    images = torch.rand(2, 48, 48, generator=generator())
    image_token = model.config.image_token_id
    ids = torch.tensor([[1, 4, *[image_token] * 36, 5, 7]]).expand(2, -1)
    with torch.no_grad():
        whole = model(input_ids=ids, pixel_values=janus.to_pixels(images, 48)).logits[:, [-2, -1]]
        tokens = janus.encode(model, images)
        last = torch.tensor([[38, 39]]).expand(2, -1)
        torch.testing.assert_close(janus.answer(model, tokens, ids, last), whole)


def test_window_keeps_the_right_tokens(recipe):
    grid = torch.arange(25).reshape(1, 25, 1)
    cut = recipe("janus").Window(top=1, left=2, side=2).cut(grid, 5)
    assert cut.flatten().tolist() == [7, 8, 12, 13]


def test_line_masks_reach_the_acceleration_and_keep_the_centre(recipe):
    acceleration = torch.linspace(2, 8, 30)
    masks = recipe("degrade").line_masks(acceleration, 192, generator())
    assert masks[:, 96].all()
    reached = 192 / masks.sum(1)
    assert ((reached - acceleration).abs() < 1).float().mean() > 0.6  # equispaced: centre on top
    assert (reached < acceleration + 0.2).all()


def test_pairs_have_no_error_when_clean_and_lines_missing_when_aliased(recipe):
    degrade = recipe("degrade")
    pairs = degrade.make_pairs(phantom(48, 64), 64, generator(1))
    clean = pairs.kind == 0
    assert (pairs.error[clean] < 1e-6).all()
    assert (pairs.local[clean] < 1e-6).all()
    assert pairs.error[~clean].mean() > 0.05
    assert (pairs.acceleration[pairs.kind == 1] >= 2).all()


def test_blur_lowers_high_frequencies(recipe):
    truth = torch.polar(phantom(4, 192), torch.zeros(4, 192, 192))
    blurred = recipe("degrade")._blurred(truth, torch.zeros(4), generator())
    edge = torch.arange(192)[None, :].sub(96).abs().expand(192, -1) > 80
    before, after = fft2c(truth).abs()[:, edge], fft2c(blurred + 0j).abs()[:, edge]
    assert (after.norm(dim=1) < 0.5 * before.norm(dim=1)).all()


def test_dense_target_places_the_error_on_its_token(recipe):
    degrade = recipe("degrade")
    local = torch.zeros(1, 32, 32)
    local[0, 8:16, 16:24] = degrade.ERROR_UNIT
    target = degrade.dense_target(local, 32, 8).reshape(4, 4)
    expected = torch.zeros(4, 4)
    expected[1, 2] = torch.tensor(2.0).log()
    torch.testing.assert_close(target, expected)


def test_answerable_leaves_the_ambiguous_out(recipe):
    degrade, questions = recipe("degrade"), recipe("questions")
    error = torch.tensor([0.0, 0.02, 0.2, 0.2, 0.2])
    kind = torch.tensor([0, 1, 1, 2, 4])
    pairs = degrade.Pairs(error, kind, error, error, error)
    known, answers = questions.answerable(pairs)
    assert known.tolist() == [[1, 0], [0, 0], [1, 1], [1, 1], [1, 0]]
    assert answers[:, 0].tolist() == [0, 0, 1, 1, 1]
    assert answers[2:4, 1].tolist() == [1, 0]


def test_whiten_patches_starts_from_uncorrelated_embeddings(recipe, trained):
    from transformers import JanusForConditionalGeneration

    janus, start = recipe("janus"), recipe("start")
    model = JanusForConditionalGeneration.from_pretrained(trained[0] / "janus_mini")
    clean = torch.rand(4, 64, 64, generator=generator())  # rough: every component above the floor
    start.whiten_patches(model, clean, [48], generator(1))
    images = recipe("degrade").draw_pairs(clean, [48], 32, generator(2)).image
    embed = model.model.vision_model.embeddings.patch_embedding
    with torch.no_grad():
        embedded = embed(janus.to_pixels(images, 48)).movedim(1, -1).flatten(0, -2)
    covariance = embedded.T.cov()
    assert covariance.diag().mean() == pytest.approx(1, abs=0.4)
    assert (covariance - covariance.diag().diag()).abs().max() < 1


def test_by_artefact_sorts_errors_into_channels(recipe):
    target = torch.ones(5, 2)
    sorted_errors = recipe("degrade").by_artefact(target, torch.arange(5))
    assert sorted_errors[:, 0].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert torch.equal(sorted_errors[:, 0], sorted_errors[:, 1])
