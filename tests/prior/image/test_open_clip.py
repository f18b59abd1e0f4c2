"""A small CLIP of open_clip with a ViT of timm inside, as BiomedCLIP has, and its folder."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mrisem.errors import InputError
from mrisem.prior.image.open_clip import load_open_clip_encoder

VISION = {
    "timm_model_name": "vit_tiny_patch16_224",
    "timm_model_pretrained": False,
    "timm_pool": "",
    "timm_proj": "linear",
    "image_size": 224,
}
TEXT = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}
PREPROCESSING = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("timm")
    open_clip = pytest.importorskip("open_clip")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return open_clip.CustomTextCLIP(24, VISION, TEXT).eval()


def write_config(folder, vision=VISION):
    config = {"model_cfg": {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}}
    config |= {"preprocess_cfg": PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("open_clip")
    write_config(path)
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    return path


def test_tokens_are_the_blocks_outputs_without_class_token(model, folder):
    encoder = load_open_clip_encoder(str(folder), [3, 1])
    images = torch.rand(2, 230, 90, generator=torch.Generator().manual_seed(0))
    outputs = {}
    blocks = model.visual.trunk.blocks
    hooks = [
        blocks[level - 1].register_forward_hook(
            lambda _, __, output, level=level: outputs.update({level: output})
        )
        for level in (1, 3)
    ]
    with torch.no_grad():
        model.encode_image(encoder.prepare(images))
    for hook in hooks:
        hook.remove()
    assert (encoder.levels, encoder.widths, encoder.n_tokens) == ((3, 1), (192, 192), 196)
    assert len(encoder.network.network.blocks) == 3
    for level, tokens in zip((3, 1), encoder(images), strict=True):
        assert torch.equal(tokens, outputs[level][:, 1:])


def test_preparation_is_the_checkpoints(folder):
    pixels = load_open_clip_encoder(str(folder), [1]).prepare(torch.ones(1, 9, 9))
    assert pixels.shape == (1, 3, 224, 224)
    mean, std = (torch.tensor(values) for values in PREPROCESSING.values())
    torch.testing.assert_close(pixels[0, :, 0, 0], -mean / std)
    torch.testing.assert_close(pixels[0, :, 112, 112], (1 - mean) / std)


def refusal(path, levels=(1,)):
    with pytest.raises(InputError) as caught:
        load_open_clip_encoder(str(path), levels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_incomplete_folders_get_one_line(tmp_path):
    assert "open_clip_config.json" in refusal(tmp_path)
    write_config(tmp_path, {"layers": 2, "width": 32})
    assert "timm_model_name" in refusal(tmp_path)
    write_config(tmp_path)
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"")
    assert "must hold open_clip_model.safetensors" in refusal(tmp_path)


def test_weights_and_levels_that_do_not_serve_get_one_line(model, folder, tmp_path):
    write_config(tmp_path)
    weights = {n: w for n, w in model.state_dict().items() if "blocks.0.attn" not in n}
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    assert "got none for blocks.0.attn.proj.bias and 3 others" in refusal(tmp_path)
    assert "depth 12, got [13]" in refusal(folder, [13])
