"""The pull and the loss against formulas written out, and against a model known in closed form."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mrisem.errors import InputError
from mrisem.physics.masks import stable_seed
from mrisem.prior.generative.diffusion import DiffusionGenerator, Distillation
from mrisem.prior.generative.loading import load_diffusion
from mrisem.prior.generative.prior import GenerativePrior
from mrisem.prior.jitter import Jitter

from .tiny import autoencoder, scheduler, unet

ACQUISITION = "AXT2"


class Known(nn.Module):
    """A network that answers with a function of ``(x_t, t)``."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.config = SimpleNamespace(in_channels=1, block_out_channels=(1,))

    def forward(self, noisy, times):
        return SimpleNamespace(sample=self.function(noisy, times))


def alphas(times):
    """alpha and sigma from the betas of DDPM, without diffusers."""
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[times]
    shape = (-1, 1, 1, 1)
    return [torch.tensor(np.sqrt(v), dtype=torch.float32).reshape(shape) for v in (abar, 1 - abar)]


def drawn(settings, shape, iteration):
    """Times and noise of an iteration, as the pull draws them."""
    generator = torch.Generator().manual_seed(stable_seed("diffusion", settings.seed, iteration))
    shares = settings.shares(iteration, generator, shape[0])
    return (shares * 999).round().long(), torch.randn(shape, generator=generator)


def gradient(prior, magnitude, iteration=0):
    leaf = magnitude.clone().requires_grad_()
    loss = prior.losses(leaf, iteration)["semantic"]
    return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_loss_has_the_gradient_of_score_distillation(images, channels):
    network, settings = unet(channels), Distillation(time_range=(0.1, 0.6), seed=5)
    generator = DiffusionGenerator(network, scheduler(), settings)
    loss, found = gradient(GenerativePrior(generator, ACQUISITION), images, iteration=3)
    # x in [-1, 1], x_t = alpha x + sigma eps, g = sigma / alpha (eps_theta(x_t, t) - eps) / N
    leaf = images.clone().requires_grad_()
    x = (2 * leaf / leaf.amax((1, 2), keepdim=True) - 1)[:, None].repeat(1, channels, 1, 1)
    times, noise = drawn(settings, (1, *x.shape[1:]), 3)
    alpha, sigma = alphas(times.numpy())
    with torch.no_grad():
        predicted = network(alpha * x + sigma * noise, times.expand(2)).sample
        pull = sigma / alpha * (predicted - noise)
    (expected,) = torch.autograd.grad((pull * x).sum() / x[0].numel(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(loss, pull.square().mean((1, 2, 3)) / 2)
    assert all(weight.grad is None for weight in network.parameters())


def test_loss_of_an_image_does_not_depend_on_its_neighbours(images):
    generator = DiffusionGenerator(unet(), scheduler(), Distillation())
    prior = GenerativePrior(generator, ACQUISITION, Jitter(copies=2, max_shift=1, noise=0.0))
    together, alone = gradient(prior, images), gradient(prior, images[1:])
    torch.testing.assert_close(together[0][1:], alone[0])
    torch.testing.assert_close(together[1][1:], alone[1])
    assert not torch.equal(gradient(prior, images, 1)[0], together[0])


def test_jitter_averages_over_copies_with_draws_of_their_own(images):
    settings = Distillation()
    generator = DiffusionGenerator(unet(), scheduler(), settings)
    jitter = Jitter(copies=3, max_shift=0, noise=0.0)
    averaged = GenerativePrior(generator, ACQUISITION, jitter).losses(images)["semantic"]
    x = generator.prepare(images)
    times, noise = drawn(settings, (3, *x.shape[1:]), 0)
    losses = []
    for time, one in zip(times, noise, strict=True):
        alpha, sigma = generator.scales(time[None])
        predicted = generator.noise_of(alpha * x + sigma * one, time.expand(2), ACQUISITION)
        losses.append((sigma / alpha * (predicted - one)).square().mean((1, 2, 3)) / 2)
    torch.testing.assert_close(averaged, torch.stack(losses).mean(0))


@pytest.mark.parametrize("time_weight", ["noise_to_signal", "variance", "one"])
def test_time_weight_is_that_of_the_schedule(time_weight):
    generator = DiffusionGenerator(unet(), scheduler(), Distillation(time_weight=time_weight))
    times = [0, 20, 500, 999]
    alpha, sigma = alphas(times)
    expected = {"noise_to_signal": sigma / alpha, "variance": sigma**2, "one": sigma / sigma}
    found = generator.weight(*generator.scales(torch.tensor(times)))
    torch.testing.assert_close(found, expected[time_weight], rtol=1e-4, atol=1e-6)
    # and noise is added as diffusers does
    x, noise = torch.rand(4, 1, 2, 2), torch.rand(4, 1, 2, 2)
    added = scheduler().add_noise(x, noise, torch.tensor(times))
    torch.testing.assert_close(added, alpha * x + sigma * noise, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("time_weight", ["noise_to_signal", "one"])
def test_gradient_of_gaussian_data_points_to_their_mean(time_weight):
    """Data N(m, s^2): the exact noise is sigma (x_t - alpha m) / (alpha^2 s^2 + sigma^2)."""
    mean, std = torch.rand(1, 1, 8, 8) - 0.5, 0.3

    def exact(noisy, times):
        alpha, sigma = alphas(times.numpy())
        return sigma * (noisy - alpha * mean) / (alpha**2 * std**2 + sigma**2)

    time = 300 / 999
    settings = Distillation(time_range=(time, time), time_weight=time_weight)
    generator = DiffusionGenerator(Known(exact), scheduler(), settings)
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    draws = generator.pull(x.expand(4000, -1, -1, -1), ACQUISITION, 0, copies=4000)
    alpha, sigma = alphas([300])
    weight = generator.weight(alpha, sigma)
    expected = weight * sigma * alpha * (x - mean) / (alpha**2 * std**2 + sigma**2)
    error = weight * alpha**2 * std**2 / (alpha**2 * std**2 + sigma**2) / 4000**0.5
    assert (draws.mean(0) - expected[0]).abs().max() < 5 * error.max()
    assert (draws.mean(0) * (x - mean)[0]).sum() > 0  # what is taken away leads from the mean


def test_steps_along_the_pull_end_at_the_mean_of_gaussian_data():
    mean = torch.full((1, 1, 4, 4), 0.25)

    def exact(noisy, times):
        alpha, sigma = alphas(times.numpy())
        return (noisy - alpha * mean) / sigma  # s = 0: the data are one image

    generator = DiffusionGenerator(Known(exact), scheduler(), Distillation())
    x = torch.zeros(1, 1, 4, 4)
    for iteration in range(60):
        x = x - 0.2 * generator.pull(x, ACQUISITION, iteration)
    torch.testing.assert_close(x, mean, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_every_kind_of_prediction_gives_the_noise(kind):
    x, noise = torch.rand(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    times = torch.tensor([30, 300, 900])
    alpha, sigma = alphas(times.numpy())
    said = {"epsilon": noise, "v_prediction": alpha * noise - sigma * x, "sample": x}[kind]
    network = Known(lambda noisy, times: torch.cat([said, torch.ones_like(said)], 1))  # a variance
    generator = DiffusionGenerator(network, scheduler(prediction_type=kind), Distillation())
    predicted = generator.noise_of(alpha * x + sigma * noise, times, ACQUISITION)
    torch.testing.assert_close(predicted, noise, atol=1e-3, rtol=1e-3)


def test_guidance_leads_from_the_negative_text_to_the_text(with_text, parts):
    settings = {"text": "T2 MRI of the {anatomy}", "negative_text": "aliased"}
    generator = load_diffusion(str(with_text), guidance_scale=3.0, **settings)
    noisy, times = torch.randn(2, 1, 16, 16), torch.tensor([10, 200])

    def said(text):
        ids = parts["tokenizer"](text, padding="max_length", max_length=12, return_tensors="pt")
        states = parts["text_encoder"](ids["input_ids"]).last_hidden_state.expand(2, -1, -1)
        return parts["unet"](noisy, times, states).sample

    with torch.no_grad():
        right, wrong = said("t2 mri of the brain"), said("aliased")
        found = generator.noise_of(noisy, times, ACQUISITION)
        assert (right - wrong).abs().mean() > 1e-3
        torch.testing.assert_close(found, wrong + 3 * (right - wrong), atol=1e-4, rtol=1e-4)
        for scale, expected in ((1.0, right), (0.0, said(""))):
            alone = load_diffusion(str(with_text), text=settings["text"], guidance_scale=scale)
            torch.testing.assert_close(alone.noise_of(noisy, times, ACQUISITION), expected)


def test_text_is_that_of_the_scan(with_text):
    generator = load_diffusion(str(with_text))
    noisy, times = torch.randn(1, 1, 16, 16), torch.tensor([100])
    with torch.no_grad():
        said = [generator.noise_of(noisy, times, name) for name in ("AXT1", "AXT1PRE", "AXT2")]
    assert torch.equal(said[0], said[1])
    assert not torch.allclose(said[0], said[2])
    with pytest.raises(InputError, match="words of a scan are known of AXT1"):
        generator.noise_of(noisy, times, "LOCALISER")


def test_annealed_time_falls_from_the_highest_to_the_lowest():
    settings = Distillation(time="annealed", time_range=(0.1, 0.9), anneal_iterations=5)
    shares = [float(settings.shares(k, torch.Generator(), 1)) for k in (0, 2, 4, 9)]
    assert shares == pytest.approx([0.9, 0.5, 0.1, 0.1])


def test_uniform_time_fills_its_range():
    shares = Distillation(time_range=(0.2, 0.4)).shares(0, torch.Generator(), 1000)
    assert 0.2 <= float(shares.min()) < 0.21
    assert 0.39 < float(shares.max()) <= 0.4


def test_latent_model_is_differentiated_through_its_autoencoder(images):
    network, vae, settings = unet(2), autoencoder(), Distillation()
    generator = DiffusionGenerator(network, scheduler(), settings, vae=vae)
    _, found = gradient(GenerativePrior(generator, ACQUISITION), images)
    leaf = images.clone().requires_grad_()
    pixels = (2 * leaf / leaf.amax((1, 2), keepdim=True) - 1)[:, None]
    z = 0.5 * vae.encode(pixels).latent_dist.mean
    times, noise = drawn(settings, (1, *z.shape[1:]), 0)
    alpha, sigma = alphas(times.numpy())
    with torch.no_grad():
        predicted = network(alpha * z + sigma * noise, times.expand(2)).sample
        pull = sigma / alpha * (predicted - noise)
    (expected,) = torch.autograd.grad((pull * z).sum() / z[0].numel(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


def test_image_of_any_size_is_padded_to_what_the_network_halves():
    generator = DiffusionGenerator(unet(), scheduler(), Distillation())
    prepared = generator.prepare(torch.rand(1, 15, 22))
    assert prepared.shape == (1, 1, 16, 22)
    assert bool((prepared[..., 15:, :] == -1).all())
    loss, found = gradient(GenerativePrior(generator, ACQUISITION), torch.rand(1, 15, 22))
    assert found.shape == (1, 15, 22)
    assert bool(found.isfinite().all())
    assert bool(loss.isfinite().all())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time_range": (0.5, 0.1)}, "generator.time_range must be two shares"),
        ({"negative_text": "aliased"}, "acts through guidance"),
        ({"time": "annealed"}, "anneal_iterations, got none"),
    ],
)
def test_options_without_effect_or_range_are_refused(options, said):
    with pytest.raises(InputError, match=said) as caught:
        Distillation(**options)
    assert "\n" not in str(caught.value)
