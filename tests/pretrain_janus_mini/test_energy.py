import pytest
import torch

from mrisem.adaptation import pairs
from mrisem.adaptation.model import encode


def rough_patches(n, size=64):
    return 2 * torch.rand(n, size, generator=torch.Generator().manual_seed(3)) - 1


@pytest.fixture
def made(recipe, generator):
    """An energy of random filters."""
    energy = recipe("energy")
    drawn = energy.LocalEnergy(energy.fit_whitening(rough_patches(500)), 8, generator())
    with torch.no_grad():
        drawn.biases += 0.3 * torch.randn(8, generator=generator(5))
        drawn.weights *= 100
    return drawn


def test_energy_gradient_is_what_autograd_finds(made):
    patches = rough_patches(20).requires_grad_()
    (expected,) = torch.autograd.grad(made(patches).sum(), patches)
    torch.testing.assert_close(made.gradient(patches), expected, rtol=1e-4, atol=1e-6)


def test_energy_leaves_flat_patches_alone(made):
    flat = torch.linspace(-1, 1, 5)[:, None].expand(-1, 64)
    gradient = made.gradient(flat)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-4, rtol=0)


def test_first_layer_computes_the_energy_and_keeps_patch_and_place(
    recipe, made, trained, generator
):
    from transformers import JanusForConditionalGeneration

    energy = recipe("energy")
    model = JanusForConditionalGeneration.from_pretrained(trained / "janus_mini")
    energy.put_into_first_layer(model, made, generator(1))
    images = torch.rand(2, 48, 48, generator=generator(2))
    pixels = 2 * images / images.amax((1, 2), keepdim=True) - 1
    patches = pixels.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).flatten(1, 2)
    with torch.no_grad():
        _, levels = encode(model, images)
        expected = energy.SPREAD * made(patches)
    token = levels[1]
    assert (token[..., 64] - expected).abs().max() < 0.01 * expected.std()
    torch.testing.assert_close(token[..., :64], made.whitening(patches), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(token[0, :, 65:], token[1, :, 65:])  # of the place alone
    assert token[..., -24:].abs().max() < 1e-3


def test_descend_goes_down_and_takes_the_error_along(recipe, made, generator):
    energy = recipe("energy")
    patches = rough_patches(60).reshape(3, 20, 64)
    error = 0.01 * torch.randn(3, 20, 64, generator=generator(4))
    moved, rest = energy.descend(made, patches, error, generator())
    assert (made(moved).sum(1) < made(patches).sum(1)).all()
    torch.testing.assert_close(moved - rest, patches - error)  # the truth stays


def test_train_energy_learns_to_take_noise_away(recipe, generator, phantom):
    energy = recipe("energy")

    def draw(n, source):
        truth = phantom(n, 48)
        image = (truth + 0.1 * torch.randn(truth.shape, generator=source)).clamp_min(0)
        rest = torch.zeros(n).long()
        return pairs.compare(image, truth, truth, rest + pairs.KINDS.index("noise"), rest)

    settings = {"experts": 64, "steps": 1000, "batch": 4, "learning_rate": 5e-3}
    settings |= {"descend_from": 1000}
    made = energy.train_energy(settings, 8, draw, generator())
    unseen = energy.cut(draw(8, generator(9)), 8, (3, 5))
    with torch.no_grad():
        cosine = energy.alignment_of(made, *unseen)
    assert cosine.min() > 0.5
