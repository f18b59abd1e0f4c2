import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from mrisem.prior.language import LanguagePrior
from mrisem.prior.language_model import load_language_model
from mrisem.prior.prompts import Prompt
from mrisem.prior.ranking import held_out_losses, pair_ranking_share, ranking_share
from mrisem.prior.response_bank import (
    LanguageBank,
    Perturbation,
    build_language_bank,
    load_or_build_language_bank,
)
from mrisem.prior.semantic import Jitter
from mrisem.types import InputError

RECIPE = Path(__file__).parents[2] / "experiments" / "pretrain_janus_mini" / "janus.py"
SIZE, WIDTH = 32, 24
PROMPT = Prompt("quality", "Is this image good or bad?", "good", "bad")
SWAPPED = Prompt("quality", "Is this image good or bad?", "good", "bad", target="negative")


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("janus_recipe", RECIPE)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def processor(recipe):
    tokenizer = recipe.make_tokenizer([PROMPT.question, " good", " bad"], 400)
    return recipe.make_processor(tokenizer, SIZE, 8)


@pytest.fixture(scope="module")
def model(recipe, processor):
    vision = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": SIZE, "patch_size": 8}
    text = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 3}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256}
    whole = recipe.make_model(processor.tokenizer, vision, text, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # larger than the classes' own start: an image changes the answer
        for weight in whole.parameters():
            if weight.ndim > 1:
                weight.normal_(std=2 / weight.shape[-1] ** 0.5, generator=generator)
    return whole


@pytest.fixture(scope="module")
def folder(recipe, processor, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("janus")
    recipe.export(model, processor, path)
    return path


@pytest.fixture(scope="module")
def encoder(folder):
    return load_language_model(str(folder))


class Slices(list):
    """What AuxiliarySlices hands out."""

    fingerprint = "slices"

    def describe(self):
        return {"n_slices": len(self)}


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def slices():
    return Slices((*draw(2, 20, 24, seed=seed), None) for seed in range(3))


@pytest.fixture(scope="module")
def bank(encoder, slices):
    noise = Perturbation(n=5, sigma=0.03, batch_size=2)
    return build_language_bank(encoder, slices, PROMPT, noise, {"made": "of"}, progress=False)


def its_own_inputs(processor, encoder, images):
    """What the model's own processor makes of the conversation; the pixels are ours."""
    blank = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    content = [{"type": "image", "image": blank}, {"type": "text", "text": PROMPT.question}]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    turns = [{"role": "user", "content": content}]
    inputs = processor.apply_chat_template(turns, add_generation_prompt=True, **options)
    ids = inputs["input_ids"].expand(len(images), -1)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": encoder.tower.preprocess(images),
    }


def test_response_is_the_models_own_last_hidden_state(processor, model, encoder):
    images = draw(3, 40, 24)
    own = model(**its_own_inputs(processor, encoder, images), output_hidden_states=True)
    expected = own.hidden_states[-1][:, -1]
    torch.testing.assert_close(encoder(images, PROMPT), expected, rtol=1e-4, atol=1e-5)


def test_answer_is_what_the_model_generates(processor, model, encoder):
    images = draw(3, 40, 24)
    inputs = its_own_inputs(processor, encoder, images)
    said = model.generate(**inputs, max_new_tokens=5, do_sample=False)[
        :, inputs["input_ids"].shape[1] :
    ]
    expected = processor.tokenizer.batch_decode(said, skip_special_tokens=True)
    assert encoder.answer(images, PROMPT, 5) == [text.strip() for text in expected]


def test_model_keeps_neither_head_nor_image_generator(encoder):
    parts = {name.split(".")[0] for name, _ in encoder.named_parameters()}
    assert parts == {"tower", "norm", "aligner", "language"}
    assert not any("lm_head" in name for name, _ in encoder.named_parameters())
    assert not encoder.train().training
    assert not any(weight.requires_grad or weight.is_meta for weight in encoder.parameters())


def test_untied_heads_and_shards_are_read(recipe, processor, model, tmp_path):
    import copy

    untied = copy.deepcopy(model)
    untied.config.tie_word_embeddings = untied.config.text_config.tie_word_embeddings = False
    untied.lm_head.weight = torch.nn.Parameter(-model.lm_head.weight.detach().clone())
    recipe.export(untied, processor, tmp_path)
    untied.save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "model.safetensors").unlink(missing_ok=True)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    loaded = load_language_model(str(tmp_path))
    torch.testing.assert_close(loaded.read_head(), -model.lm_head.weight.detach())


def test_gradient_reaches_the_image_and_no_weight(encoder, bank):
    images = draw(2, 40, 24).requires_grad_()
    LanguagePrior(encoder, PROMPT, bank).losses(images)["semantic"].sum().backward()
    assert (images.grad.abs().amax((1, 2)) > 0).all()
    assert all(weight.grad is None for weight in encoder.parameters())


def plain_loss(response, positives, negatives, center):
    mean = sum(positives + negatives) / len(positives + negatives) if center else 0 * response

    def cosine(entry):
        return torch.cosine_similarity(response - mean, entry - mean, dim=0)

    wanted = sum((cosine(entry) / 0.1).exp() for entry in positives)
    unwanted = sum((cosine(entry) / 0.7).exp() for entry in negatives)
    return -(wanted / (wanted + unwanted)).log()


def naive_loss(encoder, bank, image, center):
    """The formula of method.md section 3, entry by entry, in float64."""
    response = encoder(image[None], PROMPT)[0].double()
    sides = ([*side.flatten(0, 1).double()] for side in (bank.positives, bank.negatives))
    return plain_loss(response, *sides, center)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("images_at_once", [1, 2])
def test_loss_and_gradient_equal_a_naive_loop(encoder, bank, center, images_at_once):
    prior = LanguagePrior(encoder, PROMPT, bank, center=center, images_at_once=images_at_once)
    images, same = (draw(3, 40, 24).requires_grad_() for _ in range(2))
    losses = prior.losses(images)["semantic"]
    expected = torch.stack([naive_loss(encoder, bank, image, center) for image in same])
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-7)
    weights = torch.tensor([1.0, -2.0, 0.5])
    (losses * weights).sum().backward()
    (expected * weights).sum().backward()
    error = (images.grad - same.grad).norm() / same.grad.norm()
    assert error < 2e-4  # the naive response itself is float32


def test_loss_values_only_without_a_gradient(encoder, bank):
    prior = LanguagePrior(encoder, PROMPT, bank)
    with torch.no_grad():
        values = prior.losses(draw(2, 40, 24))
    assert {v.shape for v in values.values()} == {(2,)}
    assert not values["semantic"].requires_grad


def test_noise_moves_only_what_is_not_the_image(encoder):
    seen = []
    handle = encoder.language.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    _, is_image = encoder.conversations(PROMPT.question)
    noise = draw(2, encoder.n_text(PROMPT), WIDTH, seed=3)
    tokens = encoder.image_tokens(draw(1, 40, 24)).expand(2, -1, -1)
    plain, moved = encoder.respond(tokens, PROMPT), encoder.respond(tokens, PROMPT, noise)
    handle.remove()
    assert is_image.sum() == 16
    torch.testing.assert_close(seen[1][:, is_image], seen[0][:, is_image], rtol=0, atol=0)
    torch.testing.assert_close(seen[1][:, ~is_image] - seen[0][:, ~is_image], noise)
    assert not torch.allclose(plain, moved)


def test_bank_sees_each_image_once_and_perturbs_it_n_times(encoder, slices, bank):
    calls = {"tower": 0, "language": 0}

    def count(name):
        return lambda *_: calls.update({name: calls[name] + 1})

    handles = [getattr(encoder, name).register_forward_hook(count(name)) for name in calls]
    noise = Perturbation(n=5, sigma=0.03, batch_size=5)
    again = build_language_bank(encoder, slices, PROMPT, noise, {}, progress=False)
    for handle in handles:
        handle.remove()
    assert calls == {"tower": 2 * len(slices), "language": 2 * len(slices)}
    assert again.positives.shape == (3, 5, WIDTH)
    torch.testing.assert_close(again.positives, bank.positives, rtol=1e-4, atol=1e-5)
    assert again.positives.var(1).mean() > 0


def test_bank_without_noise_holds_the_plain_responses(encoder, slices):
    still = Perturbation(n=2, sigma=0.0)
    bank = build_language_bank(encoder, slices, PROMPT, still, {}, progress=False)
    plain = torch.cat([encoder(pair[1][None], PROMPT) for pair in slices])
    torch.testing.assert_close(bank.negatives[:, 1], plain, rtol=1e-4, atol=1e-5)


def test_swapped_target_is_swapped_banks(encoder, bank):
    images = draw(2, 40, 24)
    exchanged = LanguageBank(bank.negatives, bank.positives, {})
    swapped = LanguagePrior(encoder, SWAPPED, bank).losses(images)
    expected = LanguagePrior(encoder, PROMPT, exchanged).losses(images)
    for name, value in swapped.items():
        torch.testing.assert_close(value, expected[name])
    straight = LanguagePrior(encoder, PROMPT, bank).losses(images)["semantic"]
    assert not torch.allclose(straight, swapped["semantic"])


def test_bank_file_is_found_again_for_both_targets(encoder, slices, tmp_path):
    noise = Perturbation(n=2)
    options = {"folder": tmp_path, "progress": False}
    bank, path = load_or_build_language_bank(encoder, slices, PROMPT, noise, **options)
    found, same = load_or_build_language_bank(encoder, slices, SWAPPED, noise, **options)
    assert path == same
    torch.testing.assert_close(found.positives, bank.positives, rtol=0, atol=0)
    assert found.description == bank.description
    other = load_or_build_language_bank(encoder, slices, PROMPT, Perturbation(n=3), **options)[1]
    assert other != path


def test_bank_file_damage_is_detected_and_repaired(encoder, slices, tmp_path):
    options = {"folder": tmp_path, "progress": False}
    bank, path = load_or_build_language_bank(encoder, slices, PROMPT, Perturbation(n=2), **options)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        again, _ = load_or_build_language_bank(
            encoder, slices, PROMPT, Perturbation(n=2), **options
        )
    torch.testing.assert_close(again.negatives, bank.negatives)


def loss_and_gradient(prior, images):
    leaf = images.clone().requires_grad_()
    loss = prior.losses(leaf)["semantic"]
    return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]


@pytest.mark.parametrize("surroundings", ["autocast", "medium"])
def test_float32_is_kept_whatever_the_surroundings(encoder, bank, surroundings):
    prior, images = LanguagePrior(encoder, PROMPT, bank), draw(2, 40, 24)
    expected = loss_and_gradient(prior, images)
    if surroundings == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            got = loss_and_gradient(prior, images)
            response = encoder(images, PROMPT)
        assert response.dtype == torch.float32
    else:
        torch.set_float32_matmul_precision("medium")
        try:
            got = loss_and_gradient(prior, images)
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_float32_matmul_precision("highest")
    for value, reference in zip(got, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=0, atol=0)


def test_bfloat16_weights_compute_in_float32(folder, model, bank):
    stored = load_language_model(str(folder), dtype="bfloat16")
    assert stored.language.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    rounded = load_language_model(str(folder))
    with torch.no_grad():
        for weight in rounded.language.parameters():
            if weight.ndim > 1:
                weight.copy_(weight.bfloat16().float())
    images = draw(2, 40, 24)
    values = [loss_and_gradient(LanguagePrior(e, PROMPT, bank), images) for e in (stored, rounded)]
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-6)
    assert stored.fingerprint != rounded.fingerprint


def test_gradient_checkpointing_changes_nothing_but_memory(folder, encoder, bank):
    frugal = load_language_model(str(folder), gradient_checkpointing=True)
    calls = []
    frugal.language.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    images = draw(1, 40, 24)
    values = [loss_and_gradient(LanguagePrior(e, PROMPT, bank), images) for e in (frugal, encoder)]
    torch.testing.assert_close(*values)
    assert len(calls) == 2  # once forward, once more in backward


def test_jitter_averages_responses(encoder, bank):
    still = Jitter(copies=3, max_shift=0, noise=0.0)
    images = draw(2, 40, 24)
    plain = LanguagePrior(encoder, PROMPT, bank).losses(images)["semantic"]
    varied = LanguagePrior(encoder, PROMPT, bank, jitter=still).losses(images)["semantic"]
    torch.testing.assert_close(varied, plain, rtol=1e-4, atol=1e-5)


class Talker:
    """Answers by the image's mean."""

    def __call__(self, magnitude, prompt):
        return magnitude.flatten(1)

    def answer(self, magnitude, prompt):
        return [
            f" {prompt.positive}." if m > 0.5 else prompt.negative for m in magnitude.mean((1, 2))
        ]


def test_says_wanted_follows_the_target():
    images = torch.stack([torch.full((2, 2), 0.9), torch.full((2, 2), 0.1)])
    bank = LanguageBank(*draw(2, 3, 2, 4), {})
    said = [
        LanguagePrior(Talker(), prompt, bank).says_wanted(images) for prompt in (PROMPT, SWAPPED)
    ]
    assert [s.tolist() for s in said] == [[1.0, 0.0], [0.0, 1.0]]


def shared_direction(n=8, width=64):
    """Two clusters that point nearly the same way: cosines .9986, .9974 within, .9955 across."""
    generator = torch.Generator().manual_seed(0)
    shared, apart = normalize(torch.randn(2, width, generator=generator), dim=1)
    noise = torch.randn(2, n, width, generator=generator) / width**0.5
    return shared + 0.037 * noise[0], shared + 0.065 * apart + 0.051 * noise[1]


def test_ranking_centred_is_right_and_steep_where_released_is_flat():
    sides = shared_direction()
    released, centred = (held_out_losses(*sides, center=center) for center in (False, True))
    assert (centred[1].mean() - centred[0].mean()) > 1
    assert (released[1].mean() - released[0].mean()).abs() < 1e-3
    assert ranking_share(*sides, center=True) == 1.0
    assert pair_ranking_share(*sides, center=True) == 1.0
    assert ranking_share(*sides, center=False) < 0.5  # the handicap of leaving one out
    assert pair_ranking_share(*sides, center=False) > 0.9


@pytest.mark.parametrize("center", [True, False])
def test_ranking_shares_equal_plain_counts(center):
    generator = torch.Generator().manual_seed(5)
    p, n = torch.randn(2, 4, 6, generator=generator).double() + 1
    one, pair = 0, 0
    for i in range(4):
        for j in range(4):
            fewer = [*p[:i], *p[i + 1 :]], [*n[:j], *n[j + 1 :]]
            bank = fewer[0], [*n], center
            other = [*p], fewer[1], center
            one += int(plain_loss(p[i], *bank) < plain_loss(n[j], *other))
            pair += int(plain_loss(p[i], *fewer, center) < plain_loss(n[j], *fewer, center))
    assert ranking_share(p.float(), n.float(), center) == one / 16
    assert pair_ranking_share(p.float(), n.float(), center) == pair / 16
    assert 0 < one < 16


def test_bad_input_gets_one_line(folder, processor, encoder, bank, slices, tmp_path):
    for call, match in (
        (lambda: load_language_model(str(folder), dtype="float16"), "prior.dtype"),
        (lambda: LanguagePrior(encoder, PROMPT, bank, temperature_positive=0), "above 0"),
        (lambda: LanguagePrior(encoder, PROMPT, bank, images_at_once=0), "images_at_once"),
        (lambda: Perturbation(n=0), "n_perturbations"),
        (lambda: Perturbation(sigma=-1), "sigma"),
        (lambda: ranking_share(draw(1, 4), draw(3, 4), True), "at least 2"),
        (
            lambda: build_language_bank(
                encoder, Slices(), PROMPT, Perturbation(n=1), {}, progress=False
            ),
            "at least one auxiliary slice",
        ),
    ):
        with pytest.raises(InputError, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["image tokens", "tokenizer", "chat template", "aligner"])
def test_incomplete_checkpoints_get_one_line(folder, processor, tmp_path, missing):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "janus")
    target = tmp_path / "janus"
    if missing == "image tokens":
        from transformers import PreTrainedTokenizerFast

        bare = PreTrainedTokenizerFast(
            tokenizer_object=processor.tokenizer.backend_tokenizer, eos_token="<|end_of_sentence|>"
        )
        bare.save_pretrained(target)
    elif missing == "tokenizer":
        (target / "tokenizer.json").unlink()
    elif missing == "chat template":
        (target / "chat_template.jinja").unlink()
    else:
        weights = load_file(target / "model.safetensors")
        kept = {name: w for name, w in weights.items() if ".aligner.fc1" not in name}
        save_file(kept, target / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=missing.split()[-1]) as caught:
        load_language_model(str(target))
    assert "\n" not in str(caught.value)
