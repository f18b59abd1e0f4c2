"""A tiny Janus with random weights that knows the questions, images, and written pairs."""

import json

import numpy as np
import pytest

from mrisem.adaptation.questions import sentences


@pytest.fixture(scope="session")
def recipe(load_recipe):
    return load_recipe("pretrain_janus_mini/janus.py")


@pytest.fixture(scope="session")
def make_janus(recipe, tmp_path_factory):
    """Seed -> folder of a tiny Janus with random weights."""

    def make(seed):
        processor = recipe.make_processor(recipe.make_tokenizer(sentences(), 700), 32, 8)
        vision = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        vision |= {"image_size": 32, "patch_size": 8}
        text = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1}
        text |= {"num_attention_heads": 2, "num_key_value_heads": 1}
        text |= {"max_position_embeddings": 512}
        model = recipe.make_model(processor.tokenizer, vision, text, seed)
        folder = tmp_path_factory.mktemp("janus")
        recipe.export(model, processor, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def janus(make_janus):
    return make_janus(0)


@pytest.fixture(scope="session")
def processor(janus):
    from transformers import JanusProcessor

    return JanusProcessor.from_pretrained(janus)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """A file of pairs of 4 subjects: bright images are good, noisy ones bad."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(8):
        good = number % 2 == 0
        image = rng.random((40, 36)).astype(np.float32) * (0.1 if good else 1.0)
        image[10:30, 10:30] += 1.0
        np.save(folder / f"{number}.npy", image)
        rows.append({"image": f"{number}.npy", "question": "Good or bad?"})
        rows[-1] |= {"answer": "good" if good else "very bad", "subject": f"s{number // 2}"}
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
