import sys

import pytest
import torch
from safetensors.torch import save_file

from mrisem.errors import InputError
from mrisem.prior.image.timm_encoder import load_timm_encoder

NAME = "resnet18"


@pytest.fixture(scope="module")
def timm():
    return pytest.importorskip("timm")


def save_network(timm, name, path, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = timm.create_model(name).eval()
    save_file(network.state_dict(), path)
    return network


@pytest.fixture(scope="module")
def file(timm, tmp_path_factory):
    path = tmp_path_factory.mktemp("timm") / "resnet18.safetensors"
    save_network(timm, NAME, path)
    return path


def draw(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def pooled(features, grid):
    """Means over windows from floor(i n / grid) to before ceil((i + 1) n / grid), by a loop."""
    height, width = features.shape[-2:]
    tokens = []
    for i in range(grid):
        for j in range(grid):
            rows = slice(i * height // grid, -(-(i + 1) * height // grid))
            columns = slice(j * width // grid, -(-(j + 1) * width // grid))
            tokens.append(features[:, :, rows, columns].mean((2, 3)))
    return torch.stack(tokens, 1)


@pytest.mark.parametrize(
    ("name", "levels", "size"),
    [(NAME, (4, 1), None), ("convnext_atto", (1, 4), None), ("vit_tiny_patch16_224", (2,), 224)],
)
def test_tokens_are_means_of_the_features_only_networks_maps(timm, tmp_path, name, levels, size):
    path = tmp_path / "weights.safetensors"
    weights = save_network(timm, name, path).state_dict()
    encoder = load_timm_encoder(name, levels, str(path), grid=5)
    options = {"features_only": True, "out_indices": [level - 1 for level in sorted(levels)]}
    overlay = {"state_dict": weights}
    network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    images = draw(2, 90, 70)
    with torch.no_grad():
        maps = dict(zip(sorted(levels), network.eval()(encoder.prepare(images)), strict=True))
    assert encoder.prepare.image_size == size
    assert (encoder.levels, encoder.n_tokens) == (levels, 25)
    for level, width, tokens in zip(levels, encoder.widths, encoder(images), strict=True):
        assert tokens.shape == (2, 25, width)
        torch.testing.assert_close(tokens, pooled(maps[level], 5), rtol=1e-4, atol=1e-5)


def test_gradient_reaches_the_image_and_no_weight(timm, file):
    encoder = load_timm_encoder(NAME, [2, 3], str(file))
    images = draw(1, 64, 48).requires_grad_()
    sum(level.square().mean() for level in encoder(images)).backward()
    assert images.grad.abs().amax() > 0
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert not any(module.training for module in encoder.train().modules())


def test_loading_leaves_the_global_random_state_alone_and_drops_deeper_stages(timm, file):
    before = torch.get_rng_state()
    shallow, deep = (load_timm_encoder(NAME, [level], str(file)) for level in (2, 5))
    assert torch.equal(before, torch.get_rng_state())
    sizes = [sum(weight.numel() for weight in e.parameters()) for e in (shallow, deep)]
    assert sizes[0] < 0.05 * sizes[1]


def test_fingerprint_tells_weights_levels_grid_and_size_apart(timm, file, tmp_path):
    other = tmp_path / "other.safetensors"
    save_network(timm, NAME, other, seed=1)
    prints = [
        load_timm_encoder(NAME, [1, 2], str(file)).fingerprint,
        load_timm_encoder(NAME, [2, 1], str(file)).fingerprint,
        load_timm_encoder(NAME, [1, 2], str(file), grid=6).fingerprint,
        load_timm_encoder(NAME, [1, 2], str(file), image_size=64).fingerprint,
        load_timm_encoder(NAME, [1, 2], str(file), dtype="bfloat16").fingerprint,
        load_timm_encoder(NAME, [1, 2], str(other)).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert load_timm_encoder(NAME, [1, 2], str(file)).fingerprint == prints[0]


def refusal(*arguments, **options):
    with pytest.raises(InputError) as caught:
        load_timm_encoder(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_serve_gets_one_line(timm, file, tmp_path):
    assert "depth 5, got [6]" in refusal(NAME, [6], str(file))
    assert "got 'resnet_18'" in refusal("resnet_18", [1], str(file))
    assert "shapes of resnet50" in refusal("resnet50", [1], str(file))
    assert "existing safetensors file" in refusal(NAME, [1], str(tmp_path / "absent.safetensors"))
    (tmp_path / "pickle.pth").write_bytes(b"")
    assert "save_file" in refusal(NAME, [1], str(tmp_path / "pickle.pth"))
    (tmp_path / "half.safetensors").write_bytes(file.read_bytes()[:900])
    assert "whole safetensors" in refusal(NAME, [1], str(tmp_path / "half.safetensors"))
    save_file({"fc.weight": torch.zeros(2)}, tmp_path / "head.safetensors")
    assert "got none for bn1.bias" in refusal(NAME, [1], str(tmp_path / "head.safetensors"))


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'mrisem[encoders]'" in refusal(NAME, [1])
