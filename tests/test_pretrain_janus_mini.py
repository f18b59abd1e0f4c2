import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from mrisem.physics.fourier import fft2c

RECIPE = Path(__file__).parents[1] / "experiments" / "pretrain_janus_mini"
MODULES = (
    "energy",
    "degrade",
    "pairs",
    "janus",
    "pool",
    "questions",
    "evaluate",
    "start",
    "train",
    "gradient",
    "material",
    "losses",
    "measure",
)


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


def test_train_writes_results_of_every_question_and_of_the_gradient(trained):
    results = yaml.safe_load((trained[0] / "results.json").read_text())
    assert {"quality", "contrast", "anatomy"} <= results.keys()
    assert all(score["n"] > 0 for score in results.values())
    answered = [score for name, score in results.items() if not name.startswith("cosine")]
    assert all(0 <= score["accuracy"] <= 1 for score in answered)
    cosines = [s["mean"] for name, s in results.items() if name.startswith("cosine")]
    assert cosines
    assert all(-1 <= cosine <= 1 for cosine in cosines)


def test_train_exports_a_checkpoint_that_the_encoder_loads(trained):
    from mrisem.prior.encoders import load_encoder

    encoder = load_encoder(str(trained[0] / "janus_mini"), [1, 2])
    assert encoder(torch.rand(1, 40, 40, generator=generator()))[1].shape == (1, 36, 96)


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
        tokens, levels = janus.encode(model, images)
        tower = model.model.vision_model(janus.to_pixels(images, 48), output_hidden_states=True)
        for level in (1, 2):
            torch.testing.assert_close(levels[level], tower.hidden_states[level])
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


def slices(recipe, n, size):
    contrast = torch.zeros(n, dtype=torch.long)
    return recipe("pool").Slices(phantom(n, size), contrast, -torch.ones_like(contrast))


def test_pairs_have_no_error_when_clean_and_one_when_degraded(recipe):
    degrade = recipe("degrade")
    pairs = degrade.make_pairs(slices(recipe, 48, 64), 64, generator(1))
    clean = pairs.kind == 0
    assert (pairs.error[clean] < 1e-6).all()
    assert (pairs.local[clean] < 1e-6).all()
    assert pairs.error[~clean].mean() > 0.05
    rest = pairs.image - pairs.truth  # the truth is scaled to fit best: what is left is orthogonal
    assert (rest * pairs.truth).sum((1, 2)).abs().max() < 1e-2


def test_draw_pairs_never_enlarges(recipe):
    degrade = recipe("degrade")
    pool = [slices(recipe, 2, 48), slices(recipe, 2, 64)]
    sizes = {degrade.draw_pairs(pool, [40, 60], 2, generator(i)).image.shape[-1] for i in range(20)}
    assert sizes == {40, 60}
    assert degrade.draw_pairs(pool[:1], [40, 60], 2, generator()).image.shape[-1] == 40


def test_draw_material_moves_image_and_truth_together(recipe):
    degrade = recipe("degrade")
    truth = torch.rand(3, 32, 32, generator=generator())
    image = truth.clone()
    image[:, 10, 12] += 0.5
    codes = torch.full((3,), 6)
    material = recipe("pairs").compare(image, truth, codes, 0 * codes, -1 + 0 * codes)
    drawn = degrade.draw_material(material, 20, generator(1))
    spots = drawn.local.flatten(1)
    assert (spots.topk(2, dim=1).values[:, 1] < 0.1 * spots.amax(1)).all()


def test_ghosts_keep_the_energy_and_move_it(recipe):
    truth = torch.polar(phantom(4, 64), torch.zeros(4, 64, 64))
    ghosted = recipe("degrade")._ghosted(truth, torch.zeros(4), generator())
    torch.testing.assert_close(ghosted.square().sum(), truth.abs().square().sum())
    assert (ghosted - truth.abs()).flatten(1).norm(dim=1).min() > 0.01 * truth[0].norm()


def test_blur_lowers_high_frequencies(recipe):
    truth = torch.polar(phantom(4, 192), torch.zeros(4, 192, 192))
    blurred = recipe("degrade")._blurred(truth, torch.zeros(4), generator())
    edge = torch.arange(192)[None, :].sub(96).abs().expand(192, -1) > 80
    before, after = fft2c(truth).abs()[:, edge], fft2c(blurred + 0j).abs()[:, edge]
    assert (after.norm(dim=1) < 0.5 * before.norm(dim=1)).all()


def test_dense_target_places_the_error_on_its_token(recipe):
    pairs_of = recipe("pairs")
    local = torch.zeros(1, 32, 32)
    local[0, 8:16, 16:24] = pairs_of.ERROR_UNIT
    target = pairs_of.dense_target(local, 32, 8).reshape(4, 4)
    expected = torch.zeros(4, 4)
    expected[1, 2] = torch.tensor(2.0).log()
    torch.testing.assert_close(target, expected)


@pytest.mark.parametrize("size", [24, 32, 40])
def test_residual_target_is_the_error_patch_by_patch(recipe, size):
    pairs_of = recipe("pairs")
    image, truth = torch.rand(2, 1, size, size, generator=generator())
    codes = torch.zeros(1, dtype=torch.long)
    pairs = pairs_of.Pairs(image, truth, codes, image, image, codes, codes)
    target = pairs_of.residual_target(pairs, 32, 8) * pairs_of.ERROR_UNIT * image.max()
    assert target.shape == (1, 16, 64)
    whole = torch.zeros(32, 32)
    low, high = max(0, 16 - size // 2), min(32, 16 + size // 2)
    cut = slice(max(0, size // 2 - 16), min(size, size // 2 + 16))
    whole[low:high, low:high] = (image - truth)[0, cut, cut]
    for token, (row, column) in enumerate((r, c) for r in range(4) for c in range(4)):
        patch = whole[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        torch.testing.assert_close(target[0, token], patch.flatten())


def test_answers_leave_the_ambiguous_out(recipe):
    questions = recipe("questions")
    error = torch.tensor([0.0, 0.02, 0.2, 0.2, 0.2, 0.2])
    kind = torch.tensor([0, 1, 1, 3, 4, 6])
    contrast, lesion = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([1, 0, -1, -1, -1, 0])
    pairs = recipe("pairs").Pairs(error, error, kind, error, error, contrast, lesion)
    found = dict(zip(questions.QUESTIONS, questions.answers_of(pairs).T.tolist(), strict=True))
    none = questions.IGNORE
    assert found["quality"] == [0, none, 1, 1, 1, 1]
    assert found["artefact"] == [none, none, 1, 0, none, none]
    assert found["kind"] == [0, none, 1, 2, 3, none]
    assert found["contrast"] == [0, 1, 2, 3, 4, 0]
    assert found["anatomy"] == [0, 0, 0, 1, 1, 0]
    assert found["lesion"] == [0, 1, none, none, none, 1]


def test_prompts_hold_the_wordings_that_the_package_asks():
    shipped = yaml.safe_load((RECIPE / "prompts.yaml").read_text())
    conf = Path(__file__).parents[1] / "conf" / "prompt"
    for file, question in (("high_low_quality", "quality"), ("blurred_aliasing", "artefact")):
        asked = yaml.safe_load((conf / f"{file}.yaml").read_text())["wordings"]
        assert set(asked) <= set(shipped[question]["wordings"])


def test_batch_prior_equals_a_naive_loop(recipe):
    gradient = recipe("gradient")
    hidden = torch.randn(6, 4, 5, generator=generator()).double()
    error = torch.tensor([0.2, 0.0, 0.3])
    odds, losses = gradient.batch_prior({2: hidden}, {2: 0.5}, error)
    images, truths = hidden[:3].float(), hidden[3:].float()
    mean = torch.cat([truths, images[[0, 2]]]).mean((0, 1))

    def similarity(a, b):
        tokens = zip(a - mean, b - mean, strict=True)
        return sum(torch.cosine_similarity(x, y, 0) for x, y in tokens) / (4 * 0.07)

    for row in range(6):
        own, one = row % 3, hidden[row].float()
        good = sum(similarity(one, truths[j]).exp() for j in range(3) if j != own)
        bad = sum(similarity(one, images[j]).exp() for j in (0, 2) if j != own)
        torch.testing.assert_close(odds[row], (bad / good).log())
        torch.testing.assert_close(losses[row], -0.5 * (good / (good + bad)).log())


def test_alignment_is_one_where_the_loss_is_the_squared_error(recipe):
    gradient = recipe("gradient")
    truth = torch.rand(2, 8, 8, generator=generator())
    error = torch.randn(2, 8, 8, generator=generator(1))
    image = (truth + error).requires_grad_()
    area = (slice(0, 8), slice(0, 8))
    size = torch.tensor([0.5, 0.001])  # the second has not moved
    loss = (image - truth).square().sum((1, 2))
    cosine, moved = gradient.alignment(loss, image, truth, size, area)
    assert moved.tolist() == [True, False]
    torch.testing.assert_close(cosine, torch.ones(1))


def test_attack_lowers_the_loss_and_stays_within_its_radius(recipe):
    image = torch.rand(2, 8, 8, generator=generator()) + 0.5
    gradient = torch.randn(2, 8, 8, generator=generator(1))
    attacked = recipe("gradient").attack(image, gradient, 0.02)
    assert ((attacked - image) * gradient).sum() < 0
    limit = 0.02 * image.amax((1, 2), keepdim=True) + 1e-6
    assert ((attacked - image).abs() <= limit).all()


@pytest.mark.parametrize("size", [40, 48, 63, 64])
def test_area_of_a_window_is_what_its_tokens_see(recipe, trained, size):
    from transformers import JanusForConditionalGeneration

    janus = recipe("janus")
    model = JanusForConditionalGeneration.from_pretrained(
        trained[0] / "janus_mini", attn_implementation="eager"
    ).eval()
    window = janus.Window(top=2, left=3, side=2)
    image = torch.rand(1, size, size, generator=generator())
    image[0, -1, -1] = 2  # the maximum, whose gradient is of the scaling
    image.requires_grad_()
    janus.encode(model, image, window)[0].square().sum().backward()
    rows, columns = recipe("gradient").area_of(window, 8, 48, image.shape)
    image.grad[0, -1, -1] = 0
    seen = torch.zeros_like(image)
    seen[:, rows, columns] = 1
    assert (image.grad[seen == 0] == 0).all()
    assert (image.grad[:, rows, columns] != 0).float().mean() > 0.9


def rough_patches(n, size=64):
    return 2 * torch.rand(n, size, generator=generator(3)) - 1


def test_whiten_patches_starts_from_uncorrelated_embeddings(recipe, trained):
    from transformers import JanusForConditionalGeneration

    janus, start = recipe("janus"), recipe("start")
    model = JanusForConditionalGeneration.from_pretrained(trained[0] / "janus_mini")
    images = torch.rand(32, 48, 48, generator=generator())  # every component above the floor
    patches = janus.to_pixels(images, 48)[:, 0].unfold(1, 8, 8).unfold(2, 8, 8).flatten(3)
    whitening = recipe("energy").fit_whitening(patches.flatten(0, 2))
    start.whiten_patches(model, whitening, generator(1))
    embed = model.model.vision_model.embeddings.patch_embedding
    with torch.no_grad():
        embedded = embed(janus.to_pixels(images, 48)).movedim(1, -1).flatten(0, -2)
    covariance = embedded[:, :64].T.cov()
    torch.testing.assert_close(covariance[1:, 1:], torch.eye(63), atol=0.02, rtol=0)
    assert covariance[0, 0] == pytest.approx(1, abs=0.02)  # the patch's mean


def make_energy(recipe, n_experts=8):
    energy = recipe("energy")
    made = energy.LocalEnergy(energy.fit_whitening(rough_patches(500)), n_experts, generator())
    with torch.no_grad():
        made.biases += 0.3 * torch.randn(n_experts, generator=generator(5))
        made.weights *= 100
    return made


def test_energy_gradient_is_what_autograd_finds(recipe):
    made, patches = make_energy(recipe), rough_patches(20).requires_grad_()
    (expected,) = torch.autograd.grad(made(patches).sum(), patches)
    torch.testing.assert_close(made.gradient(patches), expected, rtol=1e-4, atol=1e-6)


def test_energy_leaves_flat_patches_alone(recipe):
    flat = torch.linspace(-1, 1, 5)[:, None].expand(-1, 64)
    gradient = make_energy(recipe).gradient(flat)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-4, rtol=0)


def test_first_layer_computes_the_energy_and_keeps_patch_and_place(recipe, trained):
    from transformers import JanusForConditionalGeneration

    janus, start, made = recipe("janus"), recipe("start"), make_energy(recipe)
    model = JanusForConditionalGeneration.from_pretrained(trained[0] / "janus_mini")
    start.put_into_first_layer(model, made, generator(1))
    images = torch.rand(2, 48, 48, generator=generator(2))
    pixels = janus.to_pixels(images, 48)[:, 0]
    patches = pixels.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).flatten(1, 2)
    with torch.no_grad():
        _, levels = janus.encode(model, images)
        expected = start.SPREAD * made(patches)
    token = levels[1]
    assert (token[..., 64] - expected).abs().max() < 0.01 * expected.std()
    torch.testing.assert_close(token[..., :64], made.whitening(patches), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(token[0, :, 65:], token[1, :, 65:])  # of the place alone
    assert token[..., -24:].abs().max() < 1e-3


def test_descend_goes_down_and_takes_the_error_along(recipe):
    energy, made = recipe("energy"), make_energy(recipe)
    patches = rough_patches(60).reshape(3, 20, 64)
    error = 0.01 * torch.randn(3, 20, 64, generator=generator(4))
    moved, rest = energy.descend(made, patches, error, generator())
    assert (made(moved).sum(1) < made(patches).sum(1)).all()
    torch.testing.assert_close(moved - rest, patches - error)  # the truth stays


def test_train_energy_learns_to_take_noise_away(recipe):
    energy, pairs = recipe("energy"), recipe("pairs")

    def draw(n, source):
        truth = phantom(n, 48)
        image = (truth + 0.1 * torch.randn(truth.shape, generator=source)).clamp_min(0)
        rest = torch.zeros(n).long()
        return pairs.compare(image, truth, rest + pairs.KINDS.index("noise"), rest, rest)

    settings = {"experts": 16, "steps": 200, "batch": 4, "learning_rate": 5e-3, "descend_from": 999}
    made = energy.train_energy(settings, 8, draw, generator())
    unseen = energy.cut(draw(8, generator(9)), 8, (3, 5))
    with torch.no_grad():
        cosine = energy.alignment_of(made, *unseen)
    assert cosine.min() > 10 / 48  # ten standard deviations of a random direction's, 1 / sqrt(48^2)


def test_by_artefact_sorts_errors_into_channels(recipe):
    sorted_errors = recipe("pairs").by_artefact(torch.ones(7, 2), torch.arange(7))
    channel = {1: 0, 2: 1, 3: 1, 4: 2, 5: 3, 6: 4}
    for kind in range(7):
        expected = [float(channel.get(kind) == c) for c in range(5)]
        assert sorted_errors[kind, 0].tolist() == expected
    assert torch.equal(sorted_errors[:, 0], sorted_errors[:, 1])


def test_pool_knows_which_slices_show_a_lesion(recipe):
    pool = recipe("pool")
    found = pool._slices("brain", 64, 2, range(6))
    assert found.lesion.shape == found.contrast.shape == (36,)
    assert {0, 1} == set(found.lesion.tolist())
    assert set(pool._slices("knee", 64, 1, range(1)).lesion.tolist()) == {-1}
