import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, max_pool2d

from mrisem.errors import InputError
from mrisem.imagenet.weights import random_weights
from mrisem.prior.image.building import build_bank
from mrisem.prior.image.perceptual import load_perceptual
from mrisem.prior.image.prior import SemanticPrior


def magnitude(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 3e-4


def alexnet(levels=(1, 2), grid=6, **options):
    return load_perceptual("alexnet", levels, grid, random_seed=0, **options)


def naive_tokens(feature_map, grid):
    """Mean over each window of a ``(feature, y, x)`` array, tokens row by row."""
    _, height, width = feature_map.shape
    tokens = []
    for i in range(grid):
        rows = slice(i * height // grid, -(-(i + 1) * height // grid))
        for j in range(grid):
            columns = slice(j * width // grid, -(-(j + 1) * width // grid))
            tokens.append(feature_map[:, rows, columns].mean((1, 2)))
    return np.stack(tokens)


def test_embeddings_equal_the_layers_written_out():
    image = magnitude(1, 67, 72)
    pixels = (image / image.max()).numpy()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = (pixels - mean[:, None, None]) / std[:, None, None]
    weights = {name: w.double() for name, w in random_weights("alexnet", 0).items()}
    first = conv2d(torch.from_numpy(pixels), weights["0.weight"], stride=4, padding=2).relu()
    second = conv2d(max_pool2d(first, 3, 2), weights["3.weight"], padding=2).relu()
    embeddings = alexnet(levels=[2, 1])(image)
    for embedding, feature_map in zip(embeddings, (second, first), strict=True):
        expected = naive_tokens(feature_map.numpy(), 6)
        np.testing.assert_allclose(embedding[0].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_shape_is_the_same_for_every_image_size_and_small_maps_repeat_pixels():
    encoder = alexnet(levels=[1, 5], grid=24)
    assert encoder.widths == (64, 256)
    for shape in ((2, 192, 160), (1, 33, 40)):  # the last map of the second is 1 x 1
        embeddings = encoder(magnitude(*shape))
        assert [e.shape for e in embeddings] == [(shape[0], 576, 64), (shape[0], 576, 256)]
    assert encoder.n_tokens == 576
    assert torch.equal(embeddings[1][0, 0], embeddings[1][0, 575])


def test_vgg16_offers_five_levels():
    encoder = load_perceptual("vgg16", [1, 2, 3, 4, 5], 4, random_seed=0)
    embeddings = encoder(magnitude(1, 32, 32))
    assert [e.shape[-1] for e in embeddings] == [64, 128, 256, 512, 512] == [*encoder.widths]


def test_trained_weights_are_the_default_and_differ_from_random_ones():
    image = magnitude(1, 64, 64)
    trained, random = load_perceptual("alexnet", [3], 4), alexnet([3], 4)
    assert trained.fingerprint != random.fingerprint
    assert not torch.allclose(trained(image)[0], random(image)[0], rtol=0.1)


def test_gradient_reaches_the_image_and_only_the_image():
    encoder = alexnet()
    encoder.train()
    assert not encoder.training
    image = magnitude(2, 64, 50).requires_grad_()
    sum(level.square().mean() for level in encoder(image)).backward()
    assert (image.grad.flatten(1).norm(dim=1) > 0).all()
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_the_scale_of_the_image_does_not_matter():
    encoder, image = alexnet([1], 4), magnitude(1, 40, 40)
    torch.testing.assert_close(encoder(image), encoder(1000 * image), rtol=1e-4, atol=1e-5)


def test_fingerprint_tells_what_the_output_depends_on(tmp_path):
    weights = random_weights("alexnet", 0)
    weights["0.bias"][0] += 1
    torch.save({f"features.{n}": w for n, w in weights.items()}, tmp_path / "weights.pth")
    prints = [
        alexnet([1, 2]).fingerprint,
        alexnet([2, 1]).fingerprint,
        alexnet([1, 2], grid=7).fingerprint,
        alexnet([1, 2], dtype="bfloat16").fingerprint,
        load_perceptual("alexnet", [1, 2], 6, random_seed=1).fingerprint,
        load_perceptual("alexnet", [1, 2], 6, weights=tmp_path / "weights.pth").fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert alexnet([1, 2]).fingerprint == prints[0]


def test_dtype_is_that_of_the_embeddings():
    image = magnitude(1, 64, 64)
    half, single = alexnet([1], dtype="bfloat16")(image)[0], alexnet([1])(image)[0]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), single, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": []}, "depth 5"),
        ({"levels": [0]}, "depth 5"),
        ({"levels": [6]}, "depth 5"),
        ({"levels": [2, 2]}, "different integers"),
        ({"weights": "weights.pth"}, "set one of them"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(InputError, match=words) as caught:
        alexnet(**options)
    assert "\n" not in str(caught.value)


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="alexnet, vgg16"):
        load_perceptual("vgg19")


class Blurred(list):
    """Smooth images as positives, the same with stripes as negatives."""

    fingerprint = "blurred"

    def __init__(self):
        axis = torch.linspace(-1, 1, 64)
        for width in (0.3, 0.5, 0.7, 0.9):
            image = torch.exp(-(axis[:, None] ** 2 + axis**2) / width**2)
            self.append((image, image * (1 + 0.3 * torch.cos(60 * axis)), None))

    def describe(self):
        return {}


def test_a_bank_tells_its_sides_apart_and_its_prior_lowers_the_loss():
    encoder, images = load_perceptual("alexnet", [2], 6), Blurred()
    bank = build_bank(encoder, images, [16], {})
    assert bank.levels[2].separation() == 1
    prior = SemanticPrior(encoder, bank, [1.0])
    positive, negative, _ = images[1]
    pair = torch.stack([positive, negative]).requires_grad_()
    loss = prior.losses(pair)["semantic"]
    assert loss[0] < loss[1]
    loss.sum().backward()
    step = pair.detach() - 0.01 * pair.grad / pair.grad.flatten(1).norm(dim=1)[:, None, None]
    assert prior.losses(step)["semantic"][1] < loss[1]
