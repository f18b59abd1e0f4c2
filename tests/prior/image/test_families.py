"""Each family on a tiny random checkpoint of transformers' own making."""

import json

import pytest
import torch
import transformers as hf

from mrisem.errors import InputError
from mrisem.prior.image.encoder import load_encoder

DEPTH, WIDTH = 3, 32
VIT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 33,  # not a multiple of the patch: the last column and row see no patch
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 20,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
DINO = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 42,
    "patch_size": 14,
    "layerscale_value": 0.7,
}
DINO3 = {**VIT, "hidden_act": "gelu", "num_register_tokens": 2, "rope_theta": 50.0}
NAMES = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}


def siglip():
    return hf.SiglipModel(hf.SiglipConfig(vision_config=VIT, text_config=TEXT))


def clip():
    return hf.CLIPModel(hf.CLIPConfig(vision_config=VIT, text_config=TEXT))


# name -> (model, its tower, prefix tokens, patches)
FAMILIES = {
    "siglip": (siglip, lambda model: model.vision_model, 0, 16),
    "siglip_alone": (
        lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**VIT)),
        lambda model: model,
        0,
        16,
    ),
    "clip": (clip, lambda model: model.vision_model, 1, 16),
    "clip_alone": (
        lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**VIT)),
        lambda model: model,
        1,
        16,
    ),
    "dinov2": (lambda: hf.Dinov2Model(hf.Dinov2Config(**DINO)), lambda model: model, 1, 9),
    "dinov2_classifier": (
        lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**DINO)),
        lambda model: model.dinov2,
        1,
        9,
    ),
    "dinov2_giant_style": (
        lambda: hf.Dinov2Model(hf.Dinov2Config(**DINO, use_swiglu_ffn=True)),
        lambda model: model,
        1,
        9,
    ),
    "dinov3": (lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**DINO3)), lambda model: model, 3, 16),
    "dinov3_gated": (
        lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**DINO3, use_gated_mlp=True)),
        lambda model: model,
        3,
        16,
    ),
    "dinov2_registers": (
        lambda: hf.Dinov2WithRegistersModel(
            hf.Dinov2WithRegistersConfig(**DINO, num_register_tokens=4)
        ),
        lambda model: model,
        5,
        9,
    ),
}
ONE_OF_EACH = ["siglip", "clip", "dinov2", "dinov2_registers", "dinov3"]


def shake(model):
    """Every weight random: fresh models have ones, zeros and equal tokens that hide mistakes."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)
    return model.eval()


def write_preprocessor(folder, **changes):
    (folder / "preprocessor_config.json").write_text(json.dumps({**NAMES, **changes}))


@pytest.fixture(scope="module")
def models():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: shake(entry[0]()) for name, entry in FAMILIES.items()}


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    paths = {}
    for name, model in models.items():
        paths[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(paths[name])
        write_preprocessor(paths[name])
    return paths


def magnitude(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 3e-4


def hooked(tower, pixels):
    """Outputs of the tower's layers, taken by hooks while the model runs as its authors run it."""
    seen = []
    (layers,) = (
        module
        for name, module in tower.named_modules()
        if name in ("encoder.layers", "encoder.layer", "model.layer")
    )
    hooks = [
        layer.register_forward_hook(
            lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        for layer in layers
    ]
    with torch.no_grad():
        tower(pixels)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("name", FAMILIES)
def test_family_gives_the_models_own_hidden_states_without_prefix_tokens(name, models, folders):
    _, tower_of, n_prefix, n_tokens = FAMILIES[name]
    encoder, tower = load_encoder(str(folders[name]), [3, 1]), tower_of(models[name])
    images = magnitude(2, 40, 24)
    pixels = encoder.prepare(images)
    layers = hooked(tower, pixels)
    assert len(layers) == DEPTH
    assert (encoder.n_tokens, encoder.widths) == (n_tokens, (WIDTH, WIDTH))
    with torch.no_grad():
        hidden = tower(pixels, output_hidden_states=True).hidden_states
    for level, states in zip((3, 1), encoder(images), strict=True):
        assert states.shape == (2, n_tokens, WIDTH)
        assert torch.equal(states, layers[level - 1][:, n_prefix:])
        assert torch.equal(states, hidden[level][:, n_prefix:])


@pytest.mark.parametrize("name", FAMILIES)
def test_family_keeps_the_deepest_level_and_nothing_behind_it(name, models, folders):
    encoder = load_encoder(str(folders[name]), [1])
    parts = (
        "embeddings.",
        "pre_layrnorm.",
        "encoder.layers.0.",
        "encoder.layer.0.",
        "model.layer.0.",
    )
    tower = FAMILIES[name][1](models[name])
    kept = [weight.numel() for part, weight in tower.named_parameters() if part.startswith(parts)]
    assert sum(weight.numel() for weight in encoder.parameters()) == sum(kept)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_family_gradient_reaches_the_image_and_no_weight(name, folders):
    encoder = load_encoder(str(folders[name]), [1, 3])
    images = magnitude(2, 40, 24).requires_grad_()
    sum(level.square().mean() for level in encoder(images)).backward()
    assert images.grad.abs().amax() > 0
    assert all(not weight.requires_grad for weight in encoder.parameters())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_family_in_shards_is_the_same(name, models, folders, tmp_path):
    models[name].save_pretrained(tmp_path, max_shard_size="20KB")
    write_preprocessor(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    one, many = load_encoder(str(folders[name]), [2]), load_encoder(str(tmp_path), [2])
    assert one.fingerprint == many.fingerprint


def test_names_of_newer_checkpoints_are_read_as_well(models, folders, tmp_path):
    from safetensors.torch import save_file

    models["dinov2"].config.save_pretrained(tmp_path)
    save_file(models["dinov2"].state_dict(), tmp_path / "model.safetensors")
    write_preprocessor(tmp_path)
    old, new = load_encoder(str(folders["dinov2"]), [2]), load_encoder(str(tmp_path), [2])
    assert old.fingerprint == new.fingerprint


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_family_in_bfloat16_stays_near_float32(name, folders):
    single, half = (load_encoder(str(folders[name]), [2], word) for word in ("float32", "bfloat16"))
    images = magnitude(1, 30, 30)
    assert half(images)[0].dtype == torch.bfloat16
    torch.testing.assert_close(half(images)[0].float(), single(images)[0], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_family_fingerprint_tells_weights_levels_and_preprocessing_apart(
    name, models, folders, tmp_path
):
    other = tmp_path / "other"
    with torch.random.fork_rng():
        torch.manual_seed(1)
        shake(FAMILIES[name][0]()).save_pretrained(other)
    write_preprocessor(other)
    models[name].save_pretrained(tmp_path)
    write_preprocessor(tmp_path, image_std=[0.5] * 3)
    prints = [
        load_encoder(str(folders[name]), [1, 2]).fingerprint,
        load_encoder(str(folders[name]), [1, 3]).fingerprint,
        load_encoder(str(folders[name]), [1, 2], pad_value=0.0).fingerprint,
        load_encoder(str(other), [1, 2]).fingerprint,
        load_encoder(str(tmp_path), [1, 2]).fingerprint,
    ]
    assert len(set(prints)) == len(prints)


def test_fingerprint_tells_the_number_of_heads_apart(folders, tmp_path):
    config = json.loads((folders["dinov2"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_attention_heads": 4}))
    weights = (folders["dinov2"] / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    write_preprocessor(tmp_path)
    two, four = load_encoder(str(folders["dinov2"]), [1]), load_encoder(str(tmp_path), [1])
    assert two.fingerprint != four.fingerprint


@pytest.mark.parametrize(
    ("stated", "black", "white"),
    [
        ({"image_mean": 0.5, "image_std": 0.25}, -2.0, 2.0),
        ({"do_normalize": False}, 0.0, 1.0),
    ],
)
def test_normalisation_of_one_value_and_none(models, tmp_path, stated, black, white):
    models["siglip_alone"].save_pretrained(tmp_path)
    write_preprocessor(tmp_path, **stated)
    pixels = load_encoder(str(tmp_path), [1]).prepare(torch.ones(1, 9, 9))
    assert pixels.shape == (1, 3, 33, 33)
    assert pixels[0, :, 0, 0].tolist() == [black] * 3
    assert pixels[0, :, 16, 16].tolist() == [white] * 3


def refusal(path, levels=(1,)):
    with pytest.raises(InputError) as caught:
        load_encoder(str(path), levels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_family_refuses_a_level_beyond_its_depth(name, folders):
    assert f"depth {DEPTH}, got [1, 4]" in refusal(folders[name], [1, 4])


def test_family_refuses_pickles(folders, tmp_path):
    (tmp_path / "config.json").write_text((folders["clip"] / "config.json").read_text())
    write_preprocessor(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "only pickled weights pytorch_model.bin" in refusal(tmp_path)


def test_family_refuses_weights_that_contradict_the_configuration(folders, tmp_path):
    config = json.loads((folders["dinov2"] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "mlp_ratio": 4}))
    weights = (folders["dinov2"] / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    write_preprocessor(tmp_path)
    assert "shapes that config.json asks for" in refusal(tmp_path)


def test_family_refuses_means_of_another_channel_count(models, tmp_path):
    models["siglip_alone"].save_pretrained(tmp_path)
    write_preprocessor(tmp_path, image_mean=[0.1, 0.2])
    assert "image_mean must have 1 value or one for each of 3 channels" in refusal(tmp_path)


def test_family_refuses_oblong_inputs(models, tmp_path):
    models["dinov2"].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "image_size": [42, 28]}))
    write_preprocessor(tmp_path)
    assert "image_size of the encoder must be square" in refusal(tmp_path)


def test_naflex_siglip2_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
    message = refusal(tmp_path)
    assert "NaFlex" in message
    assert "google/siglip2-large-patch16-384" in message
