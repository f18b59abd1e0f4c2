"""Adapters as `encoder.adapter` meets them: whose they are, and the banks that they name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mrisem.errors import InputError
from mrisem.prior.adapters import BASE, CONFIG, PARTS, WEIGHTS, part_fingerprints
from mrisem.prior.image.builder import ImagePriorBuilder
from mrisem.prior.image.encoder import load_encoder
from mrisem.prior.language.loading import load_language_model

VISION = "vision_model.encoder.layers.0.mlp.fc1"
LANGUAGE = "language_model.layers.0.mlp.up_proj"


def write_adapter(path, janus, *layers, rank=2):
    """An adapter with random factors, in peft's names."""
    path.mkdir()
    facts = {"base": "the base", "fingerprints": part_fingerprints(janus, PARTS), "parts": ["p"]}
    (path / BASE).write_text(json.dumps(facts))
    (path / CONFIG).write_text(json.dumps({"r": rank, "lora_alpha": 4}))
    weights, generator = load_file(janus / "model.safetensors"), torch.Generator().manual_seed(0)
    factors = {}
    for layer in layers:
        out, width = weights[f"model.{layer}.weight"].shape
        for side, shape in (("A", (rank, width)), ("B", (out, rank))):
            name = f"base_model.model.model.{layer}.lora_{side}.weight"
            factors[name] = torch.randn(shape, generator=generator)
    save_file(factors, path / WEIGHTS)
    return path


def key(janus, adapter=None):
    builder = ImagePriorBuilder(lambda: load_encoder(str(janus), [1], adapter=adapter), "x")
    facts, _ = builder.recipe(builder.load_encoder(torch.device("cpu")), torch.device("cpu"))
    return facts["encoder"]


def test_bank_key_changes_with_the_adapter(folder, tmp_path):
    adapter = write_adapter(tmp_path / "a", folder, VISION)
    assert key(folder) == key(folder)
    assert key(folder, str(adapter)) != key(folder)
    plain, adapted = (load_language_model(str(folder), adapter=a) for a in (None, str(adapter)))
    assert plain.fingerprint != adapted.fingerprint


def test_adapter_of_deeper_layers_is_cut_with_the_tower(folder, tmp_path):
    deeper = VISION.replace("layers.0", "layers.1")
    adapter = str(write_adapter(tmp_path / "a", folder, VISION, deeper))
    image = torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(0))
    one = load_encoder(str(folder), [1], adapter=adapter)(image)[0]
    first, _ = load_encoder(str(folder), [1, 2], adapter=adapter)(image)
    assert torch.equal(one, first)


def test_adapter_that_the_route_does_not_see_is_refused(folder, tmp_path):
    adapter = str(write_adapter(tmp_path / "a", folder, LANGUAGE))
    load_language_model(str(folder), adapter=adapter)
    with pytest.raises(InputError, match=r"what the prior looks through \(vision\)"):
        load_encoder(str(folder), [1], adapter=adapter)


def test_adapter_of_another_model_is_refused(folder, tmp_path):
    adapter = write_adapter(tmp_path / "a", folder, VISION)
    with pytest.raises(InputError, match=r"must belong to the model, .* adapts the base"):
        load_encoder("janus_mini", [1], adapter=str(adapter))
    facts = json.loads((adapter / BASE).read_text())
    facts["fingerprints"]["aligner"] = "other"
    (adapter / BASE).write_text(json.dumps(facts))
    load_encoder(str(folder), [1], adapter=str(adapter))  # its tower is the same
    with pytest.raises(InputError, match="whose aligner part has other weights"):
        load_language_model(str(folder), adapter=str(adapter))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (BASE, None, r"got no base\.json in"),
        (WEIGHTS, None, "got no adapter_model.safetensors"),
        (BASE, "{}", "an adapter's facts"),
        (CONFIG, '{"r": "two"}', "an adapter's settings"),
        (WEIGHTS, "damaged", "whole safetensors files"),
    ],
)
def test_adapter_folder_that_is_not_whole_is_refused(folder, tmp_path, name, content, words):
    adapter = write_adapter(tmp_path / "a", folder, VISION)
    (adapter / name).unlink()
    if content is not None:
        (adapter / name).write_text(content)
    with pytest.raises(InputError, match=words):
        load_encoder(str(folder), [1], adapter=str(adapter))


def test_factors_of_other_shapes_are_refused(folder, tmp_path):
    adapter = write_adapter(tmp_path / "a", folder, VISION)
    factors = load_file(adapter / WEIGHTS)
    save_file({name: value[:1] for name, value in factors.items()}, adapter / WEIGHTS)
    with pytest.raises(InputError, match=f"factors must fit {VISION}"):
        load_encoder(str(folder), [1], adapter=str(adapter))
