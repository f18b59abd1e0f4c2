import copy
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from mrisem.errors import InputError
from mrisem.prior.language.loading import load_language_model
from mrisem.prior.language.prompts import Prompt

SIZE, WIDTH = 32, 24
PROMPT = Prompt("quality", "Is this image good or bad?", "good", "bad")


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


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
        "pixel_values": encoder.tower.prepare(images),
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
    untied = copy.deepcopy(model)
    untied.config.tie_word_embeddings = untied.config.text_config.tie_word_embeddings = False
    untied.lm_head.weight = torch.nn.Parameter(-model.lm_head.weight.detach().clone())
    recipe.export(untied, processor, tmp_path)
    untied.save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "model.safetensors").unlink(missing_ok=True)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    loaded = load_language_model(str(tmp_path))
    torch.testing.assert_close(loaded.read_head(), -model.lm_head.weight.detach())


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


@pytest.mark.parametrize("missing", ["image tokens", "tokenizer", "chat template", "aligner"])
def test_incomplete_checkpoints_get_one_line(folder, processor, tmp_path, missing):
    shutil.copytree(folder, tmp_path / "janus")
    target = tmp_path / "janus"
    if missing == "image tokens":
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
