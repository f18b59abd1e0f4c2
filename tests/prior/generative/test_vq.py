"""Janus's image tokeniser with random weights as a projection."""

import pytest
import torch

from mrisem.errors import InputError
from mrisem.prior.generative.prior import GenerativePrior
from mrisem.prior.generative.vq import load_janus_vq


@pytest.fixture(scope="module")
def janus(tmp_path_factory):
    """A small Janus whose image tokeniser has 8 x 8 codes, so 16 x 16 pixels, and its folder."""
    import transformers as hf

    torch.manual_seed(0)
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 64, "patch_size": 8}
    text = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 16}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32}
    vq = {"base_channels": 32, "channel_multiplier": [1, 1], "embed_dim": 4}
    vq |= {"num_embeddings": 16, "latent_channels": 32, "projection_dim": 16, "num_res_blocks": 1}
    vq |= {"image_token_embed_dim": 16}
    config = hf.JanusConfig(vision_config=vision, text_config=text, vq_config=vq)
    model = hf.JanusForConditionalGeneration(config).eval()
    folder = tmp_path_factory.mktemp("janus_vq")
    model.save_pretrained(folder)
    return model, folder


def test_gradient_is_that_of_the_squared_distance_to_the_projection(janus):
    model, folder = janus
    prior = GenerativePrior(load_janus_vq(str(folder)), "AXT2")
    magnitude = torch.rand(2, 12, 20, requires_grad=True)
    loss = prior.losses(magnitude)["semantic"]
    (found,) = torch.autograd.grad(loss.sum(), magnitude)
    leaf = magnitude.detach().clone().requires_grad_()
    x = 2 * leaf / leaf.amax((1, 2), keepdim=True) - 1
    x = torch.nn.functional.pad(x[:, :, 2:18], (0, 0, 2, 2), value=-1.0)  # 16 x 16
    x = x[:, None].expand(-1, 3, -1, -1)
    vq = model.model.vqmodel
    with torch.no_grad():
        projection = vq.decode(vq.encode(x).image_tokens.reshape(2, -1))
    distance = (x - projection).square().mean((1, 2, 3)) / 2
    (expected,) = torch.autograd.grad(distance.sum(), leaf)
    torch.testing.assert_close(loss, distance)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert float(found.abs().max()) > 0


def test_checkpoint_that_cannot_draw_is_refused(tmp_path):
    with pytest.raises(InputError, match="needs a Janus that can draw, got janus_mini"):
        load_janus_vq("janus_mini")
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(InputError, match="got model_type 'siglip'"):
        load_janus_vq(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "janus"}')
    with pytest.raises(InputError, match="needs a vq_config"):
        load_janus_vq(str(tmp_path))
