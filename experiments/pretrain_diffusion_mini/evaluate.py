"""Errors of the predicted noise on held-out slices, beside predictors that learn little."""

from __future__ import annotations

from typing import Any

import torch
from material import Slice, write
from networks import make_scheduler
from torch import Tensor

from mrisem.physics.fourier import fft2c, ifft2c
from mrisem.progress import track

WRONG = {"brain": "knee", "knee": "brain"}
OTHER = {
    "T1": "T2",
    "T2": "T1",
    "FLAIR": "T1",
    "PD": "fat-suppressed PD",
    "fat-suppressed PD": "PD",
}


@torch.no_grad()
def evaluate(models: Any, material: dict[str, list[Slice]], config: dict[str, Any]) -> Any:
    """Compute the mean squared error of the predicted noise: 1 for a predictor that says zero.

    Every predictor sees the same noise. ``wiener`` knows mean and power spectrum of the training
    images of the slice's size, which is the best that any linear shift-invariant filter does.

    Returns:
        ``error``: predictor -> time -> mean over slices.
    """
    scheduler, slices = make_scheduler(), spread(material["held_out"], config["n_evaluate"])
    wiener = {size: spectrum(material["train"], size) for size in {s.good.shape for s in slices}}
    errors: dict[str, dict[int, float]] = {}
    jobs = [(part, time) for part in slices for time in config["times"]]
    for part, time in track(jobs, "held-out slices", unit="images"):
        image = 2 * part.good.float()[None, None] - 1
        generator = torch.Generator().manual_seed(time)
        noise = torch.randn(image.shape, generator=generator)
        times = torch.tensor([time])
        noisy = scheduler.add_noise(image, noise, times)
        kept = float(scheduler.alphas_cumprod[time])
        predictions = {
            "zero": torch.zeros_like(noise),
            "wiener": filtered(noisy, kept, *wiener[part.good.shape]),
            "plain network": models["plain"](noisy, times, [""]),
        }
        for name, text in texts(part).items():
            predictions[name] = models["diffusion"](noisy, times, [text])
        for name, predicted in predictions.items():
            sums = errors.setdefault(name, dict.fromkeys(config["times"], 0.0))
            sums[time] += float((predicted - noise).square().mean()) / len(slices)
    return {
        "error": {name: {t: round(e, 5) for t, e in row.items()} for name, row in errors.items()}
    }


def texts(part: Slice) -> dict[str, str]:
    """Return the texts whose errors are compared: a wrong one shows whether words do anything."""
    right = {"quality": "high-quality", "contrast": part.contrast, "anatomy": part.anatomy}
    right["finding"] = ""
    return {
        "diffusion, right text": write(right),
        "diffusion, no text": "",
        "diffusion, wrong contrast": write(right | {"contrast": OTHER[part.contrast]}),
        "diffusion, wrong anatomy": write(right | {"anatomy": WRONG[part.anatomy]}),
        "diffusion, wrong quality": write(right | {"quality": "aliased"}),
    }


def spread(slices: list[Slice], n: int) -> list[Slice]:
    """Choose ``n`` slices, evenly along the list, so of every size, anatomy and contrast."""
    return [slices[k * len(slices) // n] for k in range(min(n, len(slices)))]


def spectrum(slices: list[Slice], size: torch.Size) -> tuple[Tensor, Tensor]:
    """Compute mean ``(y, x)`` of the images of a size, and the power spectrum around it."""
    images = 2 * torch.stack([s.good.float() for s in slices if s.good.shape == size]) - 1
    mean = images.mean(0)
    return mean, fft2c((images - mean).to(torch.complex64)).abs().square().mean(0)


def filtered(noisy: Tensor, kept: float, mean: Tensor, power: Tensor) -> Tensor:
    """Predict the noise as ``sigma / (abar P + sigma^2)`` of what differs from the mean.

    Args:
        noisy: ``(1, 1, y, x)``: ``sqrt(abar)`` times the image and ``sigma`` times the noise.
        kept: ``abar``.
        mean: see `spectrum`.
        power: P, see `spectrum`.
    """
    rest = fft2c((noisy[0, 0] - kept**0.5 * mean).to(torch.complex64))
    gain = (1 - kept) ** 0.5 / (kept * power + 1 - kept)
    return ifft2c(gain * rest).real[None, None]
