import json
from shutil import copytree

import pytest
import torch
from transformers import JanusConfig, JanusForConditionalGeneration, JanusImageProcessor

from mrisem.errors import InputError
from mrisem.prior.image.encoder import FrozenEncoder, fingerprint, load_encoder
from mrisem.prior.image.preparation import Preparation

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


def test_forward_matches_transformers_hidden_states(model, folder):
    encoder = load_encoder(str(folder), [3, 1])
    images = magnitude(2, SIZE, SIZE)
    pixels = images / images.flatten(1).max(dim=1).values[:, None, None] * 2 - 1
    expected = model.model.vision_model(
        pixels[:, None].repeat(1, 3, 1, 1), output_hidden_states=True
    ).hidden_states
    embeddings = encoder(images)
    assert torch.equal(embeddings[0], expected[3])
    assert torch.equal(embeddings[1], expected[1])
    assert (encoder.levels, encoder.widths, encoder.n_tokens) == ((3, 1), (WIDTH, WIDTH), 16)
    assert encoder.prepare.image_size == SIZE


def test_load_keeps_only_the_tower_up_to_the_deepest_level(folder):
    encoder = load_encoder(str(folder), [1, 2])
    assert len(encoder.network.tower.encoder.layers) == 2
    assert all("post_layernorm" not in name for name in encoder.state_dict())
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert not encoder.train().training
    assert not any(module.training for module in encoder.modules())


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


def test_normalisation_is_read_from_the_checkpoint(model, tmp_path):
    model.save_pretrained(tmp_path)
    JanusImageProcessor(image_mean=[0.0, 0.1, 0.2], image_std=[1.0, 0.5, 0.25]).save_pretrained(
        tmp_path
    )
    pixels = load_encoder(str(tmp_path), [1]).prepare(torch.ones(1, SIZE, SIZE))
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor([1.0, 1.8, 3.2]))


def test_normalisation_is_read_from_a_processor_config(folder, tmp_path):
    nested = copytree(folder, tmp_path, dirs_exist_ok=True) / "preprocessor_config.json"
    image_processor = json.loads(nested.read_text())
    nested.unlink()
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"image_processor": image_processor})
    )
    assert (
        load_encoder(str(tmp_path), [1]).fingerprint == load_encoder(str(folder), [1]).fingerprint
    )


def test_missing_preprocessor_is_refused(folder, tmp_path):
    (copytree(folder, tmp_path, dirs_exist_ok=True) / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="image_mean") as caught:
        load_encoder(str(tmp_path), [1])
    assert "\n" not in str(caught.value)


def test_dtype_accepts_a_word_and_is_that_of_the_embeddings(folder):
    single, half = load_encoder(str(folder), [2]), load_encoder(str(folder), [2], "bfloat16")
    images = magnitude(1, SIZE, SIZE)
    assert half(images)[0].dtype == torch.bfloat16
    torch.testing.assert_close(half(images)[0].float(), single(images)[0], rtol=0.05, atol=0.05)


def test_fingerprint_tells_levels_padding_dtype_and_weights_apart(model, folder, tmp_path):
    path = copytree(folder, tmp_path, dirs_exist_ok=True)
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


def test_fingerprint_keeps_the_older_names_of_weights_so_that_banks_stay_valid():
    network = torch.nn.Module()
    network.tower = torch.nn.Module()
    network.tower.embeddings = torch.nn.Linear(2, 3)
    network.tower.encoder = torch.nn.Module()
    network.tower.encoder.layers = torch.nn.ModuleList([torch.nn.Linear(3, 2)])
    network.layers = torch.nn.Module()
    network.layers.features = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    prepare = Preparation(None, 1, (0.0, 1.0))
    encoder = FrozenEncoder(network, prepare, (1,), (2,), 4, ("facts",))
    older = {
        "embeddings.0": network.tower.embeddings,
        "layers.0": network.tower.encoder.layers[0],
        "features.0": network.layers.features[0],
    }
    weights = {
        f"{n}.{part}": getattr(m, part) for n, m in older.items() for part in ("weight", "bias")
    }
    assert encoder.fingerprint == fingerprint(repr(("facts", *prepare.facts())), weights)


@pytest.mark.parametrize("levels", [[], [0], [-1, 1], [4], [1, 1]])
def test_levels_outside_the_depth_are_refused(folder, levels):
    with pytest.raises(InputError, match="depth 3"):
        load_encoder(str(folder), levels)


@pytest.mark.parametrize("size", [16, 24])
def test_smaller_input_gives_fewer_tokens_of_about_the_same_image(model, folder, size):
    full, small = load_encoder(folder, (1, 2)), load_encoder(folder, (1, 2), input_size=size)
    patch = model.config.vision_config.patch_size
    assert small.n_tokens == (size // patch) ** 2 < full.n_tokens
    assert small.fingerprint != full.fingerprint
    image = magnitude(2, 40, 40).requires_grad_()
    features = small(image)
    assert [f.shape[1] for f in features] == [small.n_tokens] * 2
    (gradient,) = torch.autograd.grad(features[0].sum(), image)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("size", [0, 17, 4096])
def test_input_size_that_is_no_smaller_number_of_patches_is_refused(folder, size):
    with pytest.raises(InputError, match=r"encoder\.input_size must be a multiple of the patch"):
        load_encoder(folder, (1,), input_size=size)


def test_dtype_auto_is_bfloat16_beside_a_cuda_device(folder, monkeypatch):
    for there, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        encoder = load_encoder(folder, (1,))
        assert encoder(magnitude(1, 8, 8))[0].dtype == dtype
