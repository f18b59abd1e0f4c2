from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn.functional import interpolate

import mrisem
from mrisem.anatomy import brain
from mrisem.physics.fourier import fft2c, ifft2c
from mrisem.prior.image.building import build_bank
from mrisem.prior.image.encoder import load_encoder
from mrisem.prior.image.prior import SemanticPrior
from mrisem.prior.jitter import Jitter

FOLDER = Path(mrisem.__file__).parent / "assets" / "janus_mini"
CONF = Path(__file__).parents[3] / "conf" / "encoder"
QUALITY = "Determine whether this image is high-quality or low-quality. Respond with single word."
ARTEFACT = "Determine whether this image is blurred or aliasing. Respond with single word."


@pytest.fixture(scope="module")
def slices():
    """18 fully sampled, undersampled by 5 (16 central lines, every 7th), and blurred slices.

    Simulated at 320 and reduced to 192 pixels, as the recipe does.
    """
    subjects = [brain.Subject(seed, 320) for seed in range(11, 17)]
    fine = torch.cat([s.images(a, [0.0]) for s in subjects for a in s.acquisitions])
    clean = interpolate(fine[:, None], (192, 192), mode="bilinear", antialias=True)[:, 0]
    kspace = fft2c(clean.to(torch.complex64))
    position = torch.arange(192) - 96
    mask = (position.abs() < 8) | (position % 7 == 0)
    window = torch.exp(-2 * (torch.pi * 2.0 * position / 192) ** 2)
    blurred = ifft2c(kspace * window * window[:, None])
    return {"clean": clean, "aliased": ifft2c(kspace * mask).abs(), "blurred": blurred.abs()}


@pytest.fixture(scope="module")
def janus():
    from transformers import AutoProcessor, JanusForConditionalGeneration

    model = JanusForConditionalGeneration.from_pretrained(FOLDER).eval()
    return model, AutoProcessor.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("janus_mini", [1, 3, 4])


def ask(janus, pixels, question):
    model, processor = janus
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    text = processor.apply_chat_template([user], add_generation_prompt=True)
    blank = torch.zeros(3, 192, 192, dtype=torch.uint8)
    ids = processor(text=[text], images=[blank])["input_ids"].expand(len(pixels), -1)
    said = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=pixels,
        max_new_tokens=4,
        do_sample=False,
    )
    words = processor.tokenizer.batch_decode(said[:, ids.shape[1] :], skip_special_tokens=True)
    return [word.strip() for word in words]


def test_folder_is_small_and_free_of_pickles():
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 25e6
    assert {file.suffix for file in files} <= {".json", ".jinja", ".safetensors", ".md"}


def test_encoder_loads_through_its_configuration():
    config = OmegaConf.load(CONF / "janus_mini.yaml")
    configured = hydra.utils.instantiate({k: config[k] for k in ("_target_", "path", "levels")})
    assert configured.fingerprint == load_encoder("janus_mini", config.levels).fingerprint
    assert (configured.n_tokens, configured.widths) == (576, (128,))


@pytest.mark.parametrize("name", ["janus_pro_1b", "janus_pro_7b"])
def test_janus_pro_configurations_name_levels_within_24_layers(name):
    config = OmegaConf.load(CONF / f"{name}.yaml")
    assert list(config.levels) == [1, 13, 24]
    assert config.path.startswith("deepseek-community/Janus-Pro-")


def test_processor_builds_the_conversation(janus):
    _, processor = janus
    image = torch.zeros(3, 100, 60, dtype=torch.uint8)
    content = [{"type": "image", "image": image}, {"type": "text", "text": QUALITY}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    assert text.startswith("<|begin_of_sentence|>You are a helpful language and vision assistant.")
    assert text.count("<image_placeholder>") == 576
    assert text.endswith(f"<end_of_image>\n{QUALITY}\n\n<|Assistant|>:")
    assert inputs["pixel_values"].shape == (1, 3, 192, 192)


def test_tokenizer_keeps_any_text(janus):
    text = "Wie gut ist das Bild? 100 % — naïve, ok."
    ids = janus[1].tokenizer(text)["input_ids"]
    assert janus[1].tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("question", "name", "word"),
    [
        (QUALITY, "clean", "high-quality"),
        (QUALITY, "aliased", "low-quality"),
        (QUALITY, "blurred", "low-quality"),
        (ARTEFACT, "aliased", "aliasing"),
        (ARTEFACT, "blurred", "blurred"),
    ],
)
def test_generate_answers_clear_cases_in_one_word(janus, encoder, slices, question, name, word):
    said = ask(janus, encoder.prepare(slices[name]), question)
    assert all(len(answer.split()) == 1 for answer in said)
    assert said.count(word) >= 0.9 * len(said)


BLUR = "the aim, not reached: mean cosine .05, and one of nine below zero"


@pytest.mark.parametrize(
    "name", ["aliased", pytest.param("blurred", marks=pytest.mark.xfail(reason=BLUR))]
)
def test_gradient_of_the_default_prior_mends_images_of_other_subjects(slices, name):
    config = OmegaConf.load(CONF / "janus_mini.yaml")
    encoder = load_encoder("janus_mini", config.levels)
    known = zip(slices["clean"][:9], slices["aliased"][:9], strict=True)
    pairs = [(clean, aliased, None) for clean, aliased in known]
    bank = build_bank(encoder, pairs, [*config.prior_defaults.components], {})
    prior = SemanticPrior(encoder, bank, [*config.prior_defaults.level_weights])
    damaged, truth = (slices[kind][9:] for kind in (name, "clean"))
    gradient = 0
    for iteration in range(8):  # a step averages over shifts, as a fit does over its iterations
        leaf = damaged.clone().requires_grad_()
        moved = Jitter(**config.prior_defaults.jitter)(leaf, iteration)
        (one,) = torch.autograd.grad(prior.losses(moved)["semantic"].sum(), leaf)
        gradient = gradient + one
    error = (damaged - truth).flatten(1)
    cosine = torch.cosine_similarity(gradient.flatten(1), error)
    assert cosine.mean() > 0.1  # the classifier that shipped before: .00
    assert (cosine > 0).all()
