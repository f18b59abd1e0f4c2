"""A diffusion model as a generator: score distillation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from einops import repeat
from torch import Tensor, nn
from torch.nn.functional import pad

from mrisem.errors import InputError
from mrisem.physics.masks import stable_seed
from mrisem.prior.generative.text import DEFAULT_TEXT, fill
from mrisem.prior.image.encoder import fingerprint
from mrisem.prior.image.preparation import Preparation

_BLACK = -1.0  # of pixels in [-1, 1]


@dataclass(frozen=True)
class Distillation:
    """How the pull is computed from a diffusion model.

    Args:
        text: text that describes the scan, with ``{contrast}`` and ``{anatomy}``; empty: none;
            None: `DEFAULT_TEXT` where the model takes text.
        negative_text: text from which guidance leads away; empty: none.
        guidance_scale: s of classifier-free guidance; 1: the text alone, 0: no text.
        time: ``uniform`` draws it, ``annealed`` lets it fall over the fit.
        time_range: lowest and highest time, as shares of the schedule.
        anneal_iterations: iterations over which an annealed time falls.
        time_weight: w(t): ``noise_to_signal`` is sigma / alpha, so that the pull is the difference
            between image and denoised image (RED-diff); ``variance`` is sigma^2 (DreamFusion);
            ``one``.
        seed: seed of the draws, together with the iteration.

    Raises:
        InputError: when a number is out of its range, or an option has no effect.
    """

    text: str | None = None
    negative_text: str = ""
    guidance_scale: float = 1.0
    time: Literal["uniform", "annealed"] = "uniform"
    time_range: tuple[float, float] = (0.02, 0.2)
    anneal_iterations: int | None = None
    time_weight: Literal["noise_to_signal", "variance", "one"] = "noise_to_signal"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if len(self.time_range) != 2 or not 0 <= self.time_range[0] <= self.time_range[1] <= 1:
            raise InputError(
                "generator.time_range must be two shares of the schedule, 0 <= low <= high <= 1, "
                f"got {[*self.time_range]}; correct it"
            )
        if self.negative_text and self.guidance_scale == 1:
            raise InputError(
                f"generator.negative_text={self.negative_text!r} acts through guidance, got "
                "generator.guidance_scale=1; set a larger scale, such as 3"
            )
        if self.time == "annealed" and self.anneal_iterations is None:
            raise InputError(
                "generator.time=annealed falls over generator.anneal_iterations, got none; set it"
            )

    def shares(self, iteration: int, generator: torch.Generator, copies: int) -> Tensor:
        """Return the time of each copy as a share of the schedule, ``(copies,)``."""
        low, high = self.time_range
        if self.time == "uniform":
            return low + (high - low) * torch.rand(copies, generator=generator)
        done = min(1.0, iteration / max(1, (self.anneal_iterations or 1) - 1))
        return torch.full((copies,), high + (low - high) * done)


class DiffusionGenerator(nn.Module):
    """Frozen diffusion model; the pull is ``w(t) (eps_theta(x_t, t, text) - eps)``.

    ``x_t = alpha x + sigma eps`` with the schedule's ``alpha^2 = abar(t) = 1 - sigma^2`` (Poole et
    al., arXiv:2209.14988, Eq. 3, DreamFusion; Mardani et al., arXiv:2305.04391, RED-diff). A latent
    model acts on ``x = encoder(image)``; autograd takes the pull through that encoder to the image.

    Args:
        unet: network of diffusers that predicts from ``(x_t, t)``, and the text's embedding.
        scheduler: scheduler of diffusers that it was trained with.
        settings: how the pull is computed.
        embed: function of a text that gives its embedding ``(1, token, feature)``; None: the model
            takes no text.
        vae: autoencoder of diffusers; None: the model acts on pixels.
        side: side of the square to which images are cropped or padded, pixels; None: their own.

    Raises:
        InputError: when a text is given to a model that takes none.
    """

    def __init__(
        self,
        unet: nn.Module,
        scheduler: Any,
        settings: Distillation,
        embed: Any = None,
        vae: Any = None,
        side: int | None = None,
    ) -> None:
        super().__init__()
        self.unet, self.vae, self.settings, self.embed = unet, vae, settings, embed
        self.prediction_type = scheduler.config.prediction_type
        self.register_buffer("abar", scheduler.alphas_cumprod.float(), persistent=False)
        config: Any = unet.config if vae is None else vae.config
        self.prepare_pixels = Preparation(side, config.in_channels, (0.5, 0.5))
        networks: list[Any] = [unet] if vae is None else [unet, vae]
        # each level but the last halves the image
        self.multiple = 2 ** sum(len(n.config.block_out_channels) - 1 for n in networks)
        if embed is None and (settings.text or settings.negative_text):
            raise InputError(
                f"a generator without text encoder takes no text, got {settings.text!r}; leave "
                "generator.text and negative_text out"
            )
        if embed is None and settings.guidance_scale != 1:
            raise InputError(
                "generator.guidance_scale weighs a text, got "
                f"{settings.guidance_scale} for a generator that takes none; leave it out"
            )
        self.requires_grad_(False).eval()
        facts = repr((asdict(settings), *self.prepare_pixels.facts(), self.prediction_type))
        weights = {"abar": self.abar, **self.state_dict()}
        self.fingerprint = fingerprint(facts, weights)
        self._embedded: dict[str, Tensor] = {}

    abar: Tensor

    def train(self, mode: bool = True) -> DiffusionGenerator:
        """Stay in evaluation mode, also within a task that is trained."""
        return super().train(False)

    def prepare(self, magnitude: Tensor) -> Tensor:
        """See `Generator`: pixels in [-1, 1], or the mean latents of the autoencoder."""
        pixels = self.prepare_pixels(magnitude)
        y, x = (-n % self.multiple for n in pixels.shape[-2:])
        pixels = pad(pixels, (0, x, 0, y), value=_BLACK)
        if self.vae is None:
            return pixels
        encoded = self.vae.encode(pixels)
        # an autoencoder with a quantiser (VQModel) has latents, one without (KL) their distribution
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return (latents - shift) * self.vae.config.scaling_factor

    @torch.no_grad()
    def pull(self, state: Tensor, acquisition: str, iteration: int, copies: int = 1) -> Tensor:
        """See `Generator`."""
        seed = stable_seed("diffusion", self.settings.seed, iteration)
        generator = torch.Generator().manual_seed(seed)
        shares = self.settings.shares(iteration, generator, copies)
        noise = torch.randn((copies, *state.shape[1:]), generator=generator).to(state)
        n = len(state) // copies
        times = repeat((shares * (len(self.abar) - 1)).round().long(), "copies -> (n copies)", n=n)
        times, noise = times.to(state.device), repeat(noise, "copies ... -> (n copies) ...", n=n)
        alpha, sigma = self.scales(times)
        predicted = self.noise_of(alpha * state + sigma * noise, times, acquisition)
        return self.weight(alpha, sigma) * (predicted - noise)

    def scales(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha and sigma of times ``(n,)``, each ``(n, 1, 1, 1)``."""
        abar = self.abar[times][:, None, None, None]
        return abar.sqrt(), (1 - abar).sqrt()

    def weight(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return w(t)."""
        weights = {"noise_to_signal": sigma / alpha, "variance": sigma**2}
        return weights.get(self.settings.time_weight, torch.ones_like(sigma))

    def noise_of(self, noisy: Tensor, times: Tensor, acquisition: str) -> Tensor:
        """Predict the noise in ``noisy`` with classifier-free guidance.

        ``eps = eps(negative text) + s (eps(text) - eps(negative text))`` (Ho and Salimans,
        arXiv:2207.12598, where the negative text is empty).
        """
        if self.embed is None:
            return self._predict(noisy, times, None)
        scale = self.settings.guidance_scale
        text = DEFAULT_TEXT if self.settings.text is None else self.settings.text
        wanted, unwanted = fill(text, acquisition), self.settings.negative_text
        if scale in (0, 1):  # the other text would not count
            return self._predict(noisy, times, wanted if scale else unwanted)
        away = self._predict(noisy, times, unwanted)
        return away + scale * (self._predict(noisy, times, wanted) - away)

    def _predict(self, noisy: Tensor, times: Tensor, text: str | None) -> Tensor:
        """Predict the noise with one text, whatever the network itself predicts."""
        states = () if text is None else (self._embed(text).expand(len(noisy), -1, -1),)
        # networks that also predict a variance have it in further channels
        output = self.unet(noisy, times, *states).sample[:, : noisy.shape[1]]
        alpha, sigma = self.scales(times)
        if self.prediction_type == "v_prediction":  # v = alpha eps - sigma x
            return alpha * output + sigma * noisy
        if self.prediction_type == "sample":
            return (noisy - alpha * output) / sigma
        return output

    def _embed(self, text: str) -> Tensor:
        """Embed a text; each is embedded once."""
        if text not in self._embedded:
            self._embedded[text] = self.embed(text).to(self.abar.device)
        return self._embedded[text]
