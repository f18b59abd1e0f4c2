import json

import pytest
import torch
from transformers import JanusConfig, JanusForConditionalGeneration, JanusImageProcessor

from mrisem.prior.encoders import load_encoder
from mrisem.types import InputError

SIZE, DEPTH, WIDTH = 32, 3, 32


@pytest.fixture(scope="module")
def model():
    config = JanusConfig(
        vision_config={
            "hidden_size": WIDTH,
            "num_hidden_layers": DEPTH,
            "num_attention_heads": 2,
            "image_size": SIZE,
            "patch_size": 8,
            "projection_dim": 24,
            "num_image_tokens": 16,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 16,
            "hidden_size": 24,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
        },
        vq_config={
            "embed_dim": 2,
            "num_embeddings": 4,
            "latent_channels": 32,
            "base_channels": 32,
            "channel_multiplier": [1],
            "num_res_blocks": 1,
            "projection_dim": 8,
            "image_token_embed_dim": 24,
        },
        image_token_id=5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return JanusForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def processor():
    return JanusImageProcessor(
        size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )


@pytest.fixture(scope="module")
def folder(model, processor, tmp_path_factory):
    path = tmp_path_factory.mktemp("janus")
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def magnitude(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 3e-4


def copy_json(folder, target):
    for file in folder.glob("*.json"):
        (target / file.name).write_text(file.read_text())
    return target


def test_forward_matches_transformers_hidden_states(model, folder):
    encoder = load_encoder(str(folder), [3, 1])
    images = magnitude(2, SIZE, SIZE)
    pixels = images / images.flatten(1).max(dim=1).values[:, None, None] * 2 - 1
    expected = model.model.vision_model(
        pixels[:, None].repeat(1, 3, 1, 1), output_hidden_states=True
    ).hidden_states
    embeddings = encoder(images)
    torch.testing.assert_close(embeddings[0], expected[3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(embeddings[1], expected[1], rtol=1e-5, atol=1e-5)
    assert (encoder.levels, encoder.width, encoder.n_tokens) == ((3, 1), WIDTH, 16)
    assert encoder.image_size == SIZE


def test_load_keeps_only_the_tower_up_to_the_deepest_level(folder):
    encoder = load_encoder(str(folder), [1, 2])
    assert len(encoder.layers) == 2
    assert all("post_layernorm" not in name for name in encoder.state_dict())
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert not encoder.train().training
    assert not encoder.layers[0].training


def test_load_reads_shards_like_a_single_file(model, processor, folder, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    processor.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    one, many = load_encoder(str(folder), [1, 3]), load_encoder(str(tmp_path), [1, 3])
    assert one.fingerprint == many.fingerprint
    images = magnitude(1, SIZE, SIZE)
    torch.testing.assert_close(one(images), many(images), rtol=0, atol=0)


def test_load_leaves_the_global_random_state_alone(folder):
    before = torch.get_rng_state()
    load_encoder(str(folder), [1])
    assert torch.equal(before, torch.get_rng_state())


def test_gradient_reaches_the_image_and_only_the_image(folder):
    encoder = load_encoder(str(folder), [1, 3])
    images = magnitude(2, 40, 24).requires_grad_()
    sum(level.square().mean() for level in encoder(images)).backward()
    assert images.grad is not None
    assert images.grad.abs().amax() > 0
    assert all(weight.grad is None for weight in encoder.parameters())


def test_preprocess_gradient_matches_finite_differences(folder):
    encoder = load_encoder(str(folder), [1])
    image = magnitude(1, 6, 5, seed=3).double() * 1e4
    encoder.embeddings.double()
    encoder.mean, encoder.std = encoder.mean.double(), encoder.std.double()
    assert torch.autograd.gradcheck(encoder.preprocess, image.requires_grad_(), eps=1e-6)


@pytest.mark.parametrize(("height", "width"), [(20, 45), (33, 32), (31, 7), (32, 32)])
def test_preprocess_crops_and_pads_about_the_centre(folder, height, width):
    encoder = load_encoder(str(folder), [1])
    image = torch.zeros(1, height, width)
    image[0, height // 2, width // 2] = 7.0
    pixels = encoder.preprocess(image)
    assert pixels.shape == (1, 3, SIZE, SIZE)
    expected = torch.full((SIZE, SIZE), -1.0)
    expected[SIZE // 2, SIZE // 2] = 1.0
    for channel in pixels[0]:
        torch.testing.assert_close(channel, expected)


def test_preprocess_pad_value_fills_the_frame_only(folder):
    pixels = load_encoder(str(folder), [1], pad_value=0.0).preprocess(torch.ones(1, 10, 10))
    assert pixels[0, 0, 0, 0] == 0.0
    assert pixels[0, 0, SIZE // 2, SIZE // 2] == 1.0


def test_preprocess_of_a_zero_image_is_black(folder):
    pixels = load_encoder(str(folder), [1]).preprocess(torch.zeros(1, SIZE, SIZE))
    assert torch.equal(pixels, torch.full_like(pixels, -1.0))


def test_normalisation_is_read_from_the_checkpoint(model, tmp_path):
    model.save_pretrained(tmp_path)
    JanusImageProcessor(image_mean=[0.0, 0.1, 0.2], image_std=[1.0, 0.5, 0.25]).save_pretrained(
        tmp_path
    )
    pixels = load_encoder(str(tmp_path), [1]).preprocess(torch.ones(1, SIZE, SIZE))
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([1.0, 1.8, 3.2]))


def test_normalisation_is_read_from_a_processor_config(folder, tmp_path):
    nested = copy_json(folder, tmp_path) / "preprocessor_config.json"
    image_processor = json.loads(nested.read_text())
    nested.unlink()
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"image_processor": image_processor})
    )
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert (
        load_encoder(str(tmp_path), [1]).fingerprint == load_encoder(str(folder), [1]).fingerprint
    )


def test_dtype_accepts_a_word_and_is_that_of_the_embeddings(folder):
    single, half = load_encoder(str(folder), [2]), load_encoder(str(folder), [2], "bfloat16")
    images = magnitude(1, SIZE, SIZE)
    assert half(images)[0].dtype == torch.bfloat16
    torch.testing.assert_close(half(images)[0].float(), single(images)[0], rtol=0.05, atol=0.05)


def test_fingerprint_tells_levels_padding_dtype_and_weights_apart(model, folder, tmp_path):
    path = copy_json(folder, tmp_path)
    with torch.no_grad():
        changed = {name: value.clone() for name, value in model.state_dict().items()}
        changed["model.vision_model.encoder.layers.0.mlp.fc1.bias"][0] += 1
    model.save_pretrained(path, state_dict=changed)
    prints = [
        load_encoder(str(folder), [1, 2]).fingerprint,
        load_encoder(str(folder), [2, 1]).fingerprint,
        load_encoder(str(folder), [1, 2], pad_value=0.0).fingerprint,
        load_encoder(str(folder), [1, 2], "bfloat16").fingerprint,
        load_encoder(str(path), [1, 2]).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert load_encoder(str(folder), [1, 2]).fingerprint == prints[0]


@pytest.mark.parametrize("levels", [[], [0], [-1, 1], [4], [1, 1]])
def test_levels_outside_the_depth_are_refused(folder, levels):
    with pytest.raises(InputError, match="depth 3"):
        load_encoder(str(folder), levels)


@pytest.mark.parametrize("shape", [(4, 4), (1, 2, 4, 4)])
def test_preprocess_refuses_other_axes(folder, shape):
    with pytest.raises(InputError, match=r"\(n, y, x\)"):
        load_encoder(str(folder), [1])(torch.ones(shape))


def test_preprocess_refuses_complex_images(folder):
    with pytest.raises(InputError, match="abs"):
        load_encoder(str(folder), [1])(torch.ones(1, 4, 4, dtype=torch.complex64))


def test_unknown_dtype_is_refused(folder):
    with pytest.raises(InputError, match="bfloat16"):
        load_encoder(str(folder), [1], "int8")


def refusal(path):
    with pytest.raises(InputError) as caught:
        load_encoder(str(path), [1])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_folder_is_refused(tmp_path):
    assert "existing folder" in refusal(tmp_path / "absent")


def test_folder_without_config_is_refused(tmp_path):
    assert "config.json" in refusal(tmp_path)


def test_folder_without_weights_is_refused(folder, tmp_path):
    assert "no weights" in refusal(copy_json(folder, tmp_path))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_weights_are_refused(folder, tmp_path, name):
    (copy_json(folder, tmp_path) / name).write_bytes(b"")
    assert "pickled" in refusal(tmp_path)


def test_truncated_weights_are_refused(folder, tmp_path):
    copy_json(folder, tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    assert "whole safetensors" in refusal(tmp_path)


def test_missing_shard_is_refused(model, processor, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    processor.save_pretrained(tmp_path)
    min(tmp_path.glob("model-*.safetensors")).unlink()
    assert "every shard" in refusal(tmp_path)


def test_checkpoint_without_a_tower_is_refused(model, folder, tmp_path):
    path = copy_json(folder, tmp_path)
    rest = {name: value for name, value in model.state_dict().items() if "vision_model" not in name}
    model.save_pretrained(path, state_dict=rest)
    assert "vision tower" in refusal(path)


def test_missing_preprocessor_is_refused(folder, tmp_path):
    (copy_json(folder, tmp_path) / "preprocessor_config.json").unlink()
    assert "image_mean" in refusal(tmp_path)


def test_original_deepseek_format_names_the_converted_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "multi_modality"}))
    assert "deepseek-community/Janus-Pro-1B" in refusal(tmp_path)


def test_unknown_model_type_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert "'gpt2'" in refusal(tmp_path)


def test_hub_name_without_cache_and_network_names_the_command(monkeypatch, tmp_path):
    import huggingface_hub

    def offline(*_, local_files_only=False, **__):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    message = refusal("deepseek-community/Janus-Pro-1B")
    assert "hf download deepseek-community/Janus-Pro-1B" in message


def test_hub_name_resolves_from_the_cache_first(monkeypatch, folder):
    import huggingface_hub

    asked = []

    def cached(name, *, revision, allow_patterns, local_files_only=False):
        asked.append((name, revision, local_files_only))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    assert load_encoder("owner/name", [1], revision="v2").width == WIDTH
    assert asked == [("owner/name", "v2", True)]


def test_hub_cache_without_weights_is_completed_from_the_hub(monkeypatch, folder, tmp_path):
    import huggingface_hub

    copy_json(folder, tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", lambda *_, **__: None)
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, *, local_files_only=False, **_: str(tmp_path if local_files_only else folder),
    )
    assert load_encoder("owner/name", [1]).width == WIDTH


def test_revision_of_a_folder_is_not_looked_at(folder):
    assert load_encoder(str(folder), [1], revision="main").width == WIDTH
