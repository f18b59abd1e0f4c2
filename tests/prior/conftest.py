"""A tiny Janus with random weights, its folder, and a bank of its responses."""

import pytest
import torch

from mrisem.prior.language.bank import Perturbation, build_language_bank
from mrisem.prior.language.loading import load_language_model
from mrisem.prior.language.prompts import Prompt

SIZE, WIDTH = 32, 24
PROMPT = Prompt("quality", "Is this image good or bad?", "good", "bad")


@pytest.fixture(scope="session")
def recipe(load_recipe):
    return load_recipe("pretrain_janus_mini/janus.py")


@pytest.fixture(scope="session")
def processor(recipe):
    tokenizer = recipe.make_tokenizer([PROMPT.question, " good", " bad"], 400)
    return recipe.make_processor(tokenizer, SIZE, 8)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def folder(recipe, processor, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("janus")
    recipe.export(model, processor, path)
    return path


@pytest.fixture(scope="session")
def encoder(folder):
    return load_language_model(str(folder))


class Slices(list):
    """What AuxiliarySlices hands out."""

    fingerprint = "slices"

    def describe(self):
        return {"n_slices": len(self)}


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def slices():
    return Slices((*draw(2, 20, 24, seed=seed), None) for seed in range(3))


@pytest.fixture(scope="session")
def bank(encoder, slices):
    noise = Perturbation(n=5, sigma=0.03, batch_size=2)
    return build_language_bank(encoder, slices, PROMPT, noise, {"made": "of"})
