import json

import pytest
import torch
from safetensors.torch import load_file

from mrisem.adaptation.factors import Factors
from mrisem.adaptation.material import WrittenPairs, read_rows
from mrisem.adaptation.model import load_adaptable
from mrisem.prior.adapters import PARTS, WEIGHTS, part_fingerprints
from mrisem.prior.image.encoder import load_encoder
from mrisem.prior.language.loading import load_language_model
from mrisem.prior.language.prompts import Prompt

PROMPT = Prompt("quality", "Is this good or bad?", "good", "bad")


@pytest.fixture
def images(generator):
    return torch.rand(2, 30, 28, generator=generator())


def attach(janus, folder, parts=("vision", "aligner", "language"), scale=0.0, dtype=torch.float32):
    """Save factors of a model, B being random by ``scale``; return the model."""
    base, factors = load_adaptable(janus, dtype), Factors(parts, 2, 6.0, 0.0)
    generator = torch.Generator().manual_seed(3)
    trained = factors.attach(base.model, generator)
    for name, factor in trained.items():
        if "lora_B" in name:
            factor.data += scale * torch.randn(factor.shape, generator=generator)
    facts = {"base": str(janus), "fingerprints": part_fingerprints(janus, PARTS)}
    factors.save(folder, trained, facts)
    return base


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_factors_that_are_not_trained_change_no_bit(janus, tmp_path, images, dtype):
    attach(janus, tmp_path, dtype=getattr(torch, dtype))
    plain = load_encoder(str(janus), [1, 2], dtype)
    adapted = load_encoder(str(janus), [1, 2], dtype, adapter=str(tmp_path))
    for one, other in zip(plain(images), adapted(images), strict=True):
        assert torch.equal(one, other)
    assert plain.fingerprint == adapted.fingerprint
    plain = load_language_model(str(janus), dtype)
    adapted = load_language_model(str(janus), dtype, adapter=str(tmp_path))
    assert torch.equal(plain(images, PROMPT), adapted(images, PROMPT))


def test_factors_merged_answer_as_the_model_that_was_trained(
    janus, processor, pairs, tmp_path, images
):
    base = attach(janus, tmp_path, scale=0.3)
    asked = WrittenPairs(read_rows(pairs), processor).draw(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        trained, plain = base.logits(asked), load_adaptable(janus, torch.float32).logits(asked)
    assert (trained - plain).abs().max() > 0.01
    encoder = load_encoder(str(janus), [2], adapter=str(tmp_path))
    states = base.model.model.vision_model(encoder.prepare(images), output_hidden_states=True)
    torch.testing.assert_close(encoder(images)[0], states.hidden_states[2])
    adapted = load_language_model(str(janus), adapter=str(tmp_path))
    own = {name: value for name, value in adapted.state_dict().items() if "layers.0.mlp" in name}
    assert own  # W_0 + alpha / rank B A, by hand
    factors = load_file(tmp_path / WEIGHTS)
    name = "language_model.layers.0.mlp.up_proj"
    a, b = (factors[f"base_model.model.model.{name}.lora_{side}.weight"] for side in "AB")
    frozen = load_file(janus / "model.safetensors")[f"model.{name}.weight"]
    torch.testing.assert_close(
        adapted.language.layers[0].mlp.up_proj.weight, frozen + 6.0 / 2 * b @ a
    )


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_factors_are_those_that_peft_reads(janus, processor, pairs, tmp_path):
    from peft import PeftModel
    from transformers import JanusForConditionalGeneration

    base = attach(janus, tmp_path, scale=0.3)
    asked = WrittenPairs(read_rows(pairs), processor).draw(2, torch.Generator().manual_seed(0))
    whole = JanusForConditionalGeneration.from_pretrained(janus)
    theirs = PeftModel.from_pretrained(whole, tmp_path).eval()
    named = theirs.base_model.model
    tokens = named.model.vision_model(
        torch.zeros(1, 3, 32, 32), output_hidden_states=True
    ).last_hidden_state
    ours = base.model.model.vision_model(torch.zeros(1, 3, 32, 32)).last_hidden_state
    torch.testing.assert_close(tokens, ours)
    ids = asked.sequences.ids
    hidden = [
        one(inputs_embeds=base.model.get_input_embeddings()(ids)).last_hidden_state
        for one in (named.model.language_model, base.model.model.language_model)
    ]
    torch.testing.assert_close(*hidden)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_factors_are_of_the_chosen_parts_alone(janus, tmp_path):
    attach(janus, tmp_path, parts=("aligner",))
    parts = {name.split(".")[3] for name in load_file(tmp_path / WEIGHTS)}
    assert parts == {"aligner"}
