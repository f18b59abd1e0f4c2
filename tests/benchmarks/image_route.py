"""One image-route step (loss and its gradient to the image) at ViT-L/16-384 size.

Against the formula written down plainly: the raw float32 bank is kept and projected at every step,
the encoder's weights are left trainable. Random weights and features; ``make bench`` runs this.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers.models.janus.configuration_janus import JanusVisionConfig
from transformers.models.janus.modeling_janus import JanusVisionModel

from mrisem.prior.image.bank import EmbeddingBank, LevelBank
from mrisem.prior.image.encoder import FrozenEncoder, freeze_tower
from mrisem.prior.image.prior import SemanticPrior

LEVELS, COMPONENTS, WEIGHTS = (1, 13, 24), (64, 128, 256), (0.005, 0.5, 1.0)
N_TOKENS, WIDTH, TAU = 576, 1024, 0.07


def make_tower() -> JanusVisionModel:
    """The vision tower of Janus-Pro-1B with random weights."""
    torch.manual_seed(0)
    return JanusVisionModel(JanusVisionConfig()).eval()


def make_banks(n: int) -> tuple[dict[int, tuple[Tensor, Tensor, Tensor]], EmbeddingBank]:
    """Random raw banks of n + n entries with a PCA basis, and the same projected."""
    generator = torch.Generator().manual_seed(1)
    raw, levels = {}, {}
    for level, d in zip(LEVELS, COMPONENTS, strict=True):
        entries = torch.randn(2 * n, N_TOKENS, WIDTH, generator=generator)
        mean = torch.randn(WIDTH, generator=generator) / 10
        basis = torch.linalg.qr(torch.randn(WIDTH, d, generator=generator))[0]
        raw[level] = (entries, mean, basis)
        parts = [normalize((e - mean) @ basis, dim=-1).flatten(1) for e in entries.split(64)]
        levels[level] = LevelBank(mean, basis, torch.cat(parts), n, 1.0)
    return raw, EmbeddingBank(levels)


def plain_step(tower: JanusVisionModel, raw: dict, n: int) -> Callable[[Tensor], tuple]:
    """The formula as it stands."""

    def step(image: Tensor) -> tuple[Tensor, Tensor]:
        leaf = image.clone().requires_grad_()
        pixels = (leaf / leaf.amax((1, 2), keepdim=True) * 2 - 1)[:, None].expand(-1, 3, -1, -1)
        tower.zero_grad()
        hidden = tower(pixels, output_hidden_states=True).hidden_states
        loss = torch.zeros(())
        for weight, (level, (entries, mean, basis)) in zip(WEIGHTS, raw.items(), strict=True):
            z = normalize((hidden[level] - mean) @ basis, dim=-1)
            bank = normalize((entries - mean) @ basis, dim=-1)
            s = torch.einsum("btd,ntd->bn", z, bank) / N_TOKENS
            weights = torch.exp(s / TAU)
            loss = loss - weight * torch.log(weights[:, :n].sum(1) / weights.sum(1)).sum()
        loss.backward()
        return loss.detach(), leaf.grad

    return step


def our_step(prior: SemanticPrior, autocast: bool) -> Callable[[Tensor], tuple]:
    """The same through the package."""

    def step(image: Tensor) -> tuple[Tensor, Tensor]:
        leaf = image.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = prior.losses(leaf)["semantic"].sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient

    return step


def seconds(image: Tensor, repeats: int, *steps: Callable[[Tensor], tuple]) -> list[float]:
    """Median wall seconds of steps that take turns, after one each that does not count."""
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(repeats + 1):
        for step, kept in zip(steps, times, strict=True):
            start = time.perf_counter()
            step(image)
            if turn:
                kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in times]


def encoder_alone(encoder: FrozenEncoder, autocast: bool) -> Callable[[Tensor], tuple]:
    """Forward and backward of the encoder with nothing behind it."""

    def step(image: Tensor) -> tuple:
        leaf = image.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            total = sum(f.float().mean() for f in encoder(leaf))
        return torch.autograd.grad(total, leaf)

    return step


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[100, 720], help="per side")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    image = torch.rand(1, 384, 384, generator=torch.Generator().manual_seed(2))
    print(
        f"one step, batch 1, {torch.get_num_threads()} CPU threads, median of {arguments.repeats}"
    )
    for n in arguments.entries:
        compare(n, image, arguments.repeats)


def compare(n: int, image: Tensor, repeats: int) -> None:
    """Measure the plain step and ours with banks of n + n entries."""
    tower = make_tower()
    raw, bank = make_banks(n)
    plain = plain_step(tower, raw, n)
    plain_loss, plain_gradient = plain(image)
    (base,) = seconds(image, repeats, plain)
    raw_bytes = sum(entries.nbytes for entries, _, _ in raw.values())
    del plain, raw
    print(f"\nbank of {n} + {n} entries, levels {LEVELS}, PCA {COMPONENTS}")
    print(f"  plain, float32                {base:7.2f} s   1.0 x   bank {raw_bytes / 1e9:6.2f} GB")
    encoder = freeze_tower(tower, LEVELS, ((0.5,) * 3, (0.5,) * 3))
    for name, dtype, autocast, weights in (
        ("ours, float32", torch.float32, False, torch.float32),
        ("ours, bfloat16 autocast", torch.bfloat16, True, torch.float32),
        ("ours, encoder.dtype=bfloat16", torch.bfloat16, False, torch.bfloat16),
    ):
        encoder.to(weights)
        levels = {
            level: LevelBank(b.mean, b.components, b.entries.to(dtype), n, 1.0)
            for level, b in bank.levels.items()
        }
        ours = our_step(SemanticPrior(encoder, EmbeddingBank(levels), WEIGHTS, TAU), autocast)
        loss, gradient = ours(image)
        alone = encoder_alone(encoder, autocast)
        time_ours, time_encoder = seconds(image, repeats, ours, alone)
        size = sum(b.entries.nbytes + b.components.nbytes for b in levels.values())
        rest = 100 * (1 - time_encoder / time_ours)
        off = abs(loss / plain_loss - 1).item()
        gradient_off = ((gradient - plain_gradient).norm() / plain_gradient.norm()).item()
        print(
            f"  {name:<28}  {time_ours:7.2f} s {base / time_ours:5.1f} x   "
            f"bank {size / 1e9:6.2f} GB ({raw_bytes / size:.1f} x smaller)\n"
            f"  {'':<28}  encoder alone {time_encoder:.2f} s: {rest:.1f} % of the step is other\n"
            f"  {'':<28}  loss off by {off:.1e}, gradient by {gradient_off:.1e} (relative)"
        )


if __name__ == "__main__":
    main()
