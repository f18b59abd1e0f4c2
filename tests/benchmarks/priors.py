"""Rows of the semantic prior: its step alone and in a fit, at ViT-L/16-384 size, and its bank.

The alternative is the formula written down plainly: the raw float32 bank is projected at every
step, the encoder's weights are left trainable. Weights and features are random. The raw bank,
10 GB at the paper's size, repeats a small block that is held once: reading it is faster so, if
anything.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from measure import Row, Setting, Spent, alternate, apart, in_child, peak_bytes, timed
from torch import Tensor
from torch.nn.functional import normalize

from mrisem.prior.image.bank import EmbeddingBank, LevelBank
from mrisem.prior.image.building import build_bank
from mrisem.prior.image.encoder import FrozenEncoder, freeze_tower
from mrisem.prior.image.prior import SemanticPrior

WEIGHTS, TAU = (0.005, 0.5, 1.0), 0.07
Raw = dict[int, tuple[Tensor, Tensor, Tensor]]
Step = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Size:
    """Sizes of an encoder with patches of 16 x 16, and of its bank's PCA; those of Janus-Pro-1B."""

    side: int = 384
    width: int = 1024
    layers: int = 24
    heads: int = 16
    levels: tuple[int, ...] = (1, 13, 24)
    components: tuple[int, ...] = (64, 128, 256)

    @property
    def n_tokens(self) -> int:
        """Patches of an image."""
        return (self.side // 16) ** 2


FULL = Size()
QUICK = Size(48, 32, 3, 2, (1, 2, 3), (4, 8, 16))


def make_encoder(size: Size) -> FrozenEncoder:
    """Make the vision tower of a Janus model with random weights."""
    from transformers.models.janus.configuration_janus import JanusVisionConfig
    from transformers.models.janus.modeling_janus import JanusVisionModel

    config = JanusVisionConfig(
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=size.side,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tower = JanusVisionModel(config).eval()
    return freeze_tower(tower, size.levels, ((0.5,) * 3, (0.5,) * 3))


def make_raw(size: Size, n: int) -> Raw:
    """Make a raw bank of n + n entries: level -> entries, PCA mean and basis.

    Entries are ``(repeat, block, token, feature)``, a view.
    """
    generator = torch.Generator().manual_seed(1)
    raw = {}
    for level, d in zip(size.levels, size.components, strict=True):
        # the largest power of two in 2 n, so that both sides do not repeat the same whole blocks:
        # positives equal to the negatives would have no gradient to compare
        n_block = 2 * n & -2 * n
        block = torch.randn(n_block, size.n_tokens, size.width, generator=generator)
        entries = block.expand(2 * n // n_block, *block.shape)
        mean = torch.randn(size.width, generator=generator) / 10
        basis = torch.linalg.qr(torch.randn(size.width, d, generator=generator))[0]
        raw[level] = (entries, mean, basis)
    return raw


def project(raw: Raw, n: int) -> EmbeddingBank:
    """Project a raw bank."""
    levels = {}
    for level, (entries, mean, basis) in raw.items():
        projected = normalize((entries[0] - mean) @ basis, dim=-1).flatten(1)
        levels[level] = LevelBank(mean, basis, projected.repeat(len(entries), 1), n, 1.0)
    return EmbeddingBank(levels)


def stored(bank: EmbeddingBank, dtype: torch.dtype) -> EmbeddingBank:
    """Return the bank with its entries in another dtype."""
    return EmbeddingBank(
        {
            level: LevelBank(b.mean, b.components, b.entries.to(dtype), b.n_positives, 1.0)
            for level, b in bank.levels.items()
        }
    )


def plain_step(size: Size, raw: Raw, n: int) -> Step:
    """Return the loss and its gradient to the image by the formula as it stands."""
    tower = make_encoder(size).network.tower.requires_grad_(True)

    def step(image: Tensor) -> tuple[Tensor, Tensor]:
        leaf = image.clone().requires_grad_()
        pixels = (leaf / leaf.amax((1, 2), keepdim=True) * 2 - 1)[:, None].expand(-1, 3, -1, -1)
        tower.zero_grad()
        hidden = tower(pixels, output_hidden_states=True).hidden_states
        loss = torch.zeros(())
        for weight, (level, (entries, mean, basis)) in zip(WEIGHTS, raw.items(), strict=True):
            z = normalize((hidden[level] - mean) @ basis, dim=-1)
            bank = normalize((entries - mean) @ basis, dim=-1).flatten(0, 1)
            s = torch.einsum("btd,ntd->bn", z, bank) / size.n_tokens
            weights = torch.exp(s / TAU)
            loss = loss - weight * torch.log(weights[:, :n].sum(1) / weights.sum(1)).sum()
        loss.backward()
        return loss.detach(), leaf.grad

    return step


def our_step(prior: SemanticPrior, autocast: bool = False) -> Step:
    """Return the same through the package."""

    def step(image: Tensor) -> tuple[Tensor, Tensor]:
        leaf = image.clone().requires_grad_()
        with torch.autocast(image.device.type, torch.bfloat16, enabled=autocast):
            loss = prior.losses(leaf)["semantic"].sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient

    return step


def encoder_alone(encoder: FrozenEncoder, autocast: bool = False) -> Step:
    """Forward and backward of the encoder with nothing behind it."""

    def step(image: Tensor) -> tuple:
        leaf = image.clone().requires_grad_()
        with torch.autocast(image.device.type, torch.bfloat16, enabled=autocast):
            total = sum(f.float().mean() for f in encoder(leaf))
        return torch.autograd.grad(total, leaf)

    return step


def route_rows(setting: Setting) -> Iterator[Row]:
    """Loss and gradient of one image, with a small bank and with the paper's knee bank."""
    size = setting.size(FULL, QUICK)
    for n in setting.size((100, 720), (6,)):
        yield from _route_rows(size, n, setting.turns)


def _route_rows(size: Size, n: int, turns: int) -> Iterator[Row]:
    image = torch.rand(1, size.side, size.side, generator=torch.Generator().manual_seed(2))
    raw = make_raw(size, n)
    bank = project(raw, n)
    steps = {"plain": plain_step(size, raw, n)} | _variants(bank, make_encoder(size))
    calls = {name: timed(lambda step=step: step(image)) for name, step in steps.items()}
    seconds, results = alternate(turns, calls)
    for name in list(steps)[1::2]:
        alone = 100 * seconds[f"{name}, encoder"].cpu / seconds[name].cpu
        yield Row(
            f"prior's step, {n} + {n} entries, {name}",
            "the formula written plainly, float32",
            seconds[name],
            seconds["plain"],
            apart(results[name][1], results["plain"][1]),
            f"encoder alone: {alone:.0f} % of its CPU seconds",
            asked=6 if n == 720 and name == "float32" else None,
        )
    raw_bytes = sum(4 * entries.numel() for entries, _, _ in raw.values())
    size_in = sum(b.entries.nbytes + b.components.nbytes for b in bank.levels.values())
    name = f"bank of {n} + {n} entries in memory, float32"
    yield Row(name, "raw embeddings", size_in / 1e9, raw_bytes / 1e9, unit="GB")


def _variants(bank: EmbeddingBank, encoder: FrozenEncoder) -> dict[str, Step]:
    """Our step in three precisions, each followed by its encoder alone."""
    half = copy.deepcopy(encoder).to(torch.bfloat16)
    steps: dict[str, Step] = {}
    for name, tower, dtype, autocast in (
        ("float32", encoder, torch.float32, False),
        ("bfloat16 autocast", encoder, torch.float32, True),
        ("encoder.dtype=bfloat16", half, torch.bfloat16, False),
    ):
        prior = SemanticPrior(tower, stored(bank, dtype), WEIGHTS, TAU)
        steps[name] = our_step(prior, autocast)
        steps[f"{name}, encoder"] = encoder_alone(tower, autocast)
    return steps


class Patches:
    """A cheap encoder of the same shape: each patch of the image times a random matrix."""

    fingerprint = "patches"

    def __init__(self, size: Size) -> None:
        self.levels, self.widths = size.levels, (size.width,) * len(size.levels)
        self.n_tokens = size.n_tokens
        generator = torch.Generator().manual_seed(0)
        self.matrices = [torch.randn(256, size.width, generator=generator) for _ in size.levels]

    def __call__(self, magnitude: Tensor) -> tuple[Tensor, ...]:
        """``(n, token, feature)`` for each level."""
        patches = rearrange(magnitude, "n (y i) (x j) -> n (y x) (i j)", i=16, j=16)
        return tuple(patches @ matrix for matrix in self.matrices)


class Images:
    """As many pairs of random images as asked for, always the same."""

    def __init__(self, n: int, side: int) -> None:
        self.n, self.side = n, side

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, None]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(self.n):
            yield *torch.rand(2, self.side, self.side, generator=generator), None


def memory_rows(setting: Setting) -> Iterator[Row]:
    """Peak memory of building the paper's knee bank: 20 subjects x 36 slices, 1440 images."""
    size, n = setting.size((FULL, 720), (QUICK, 20))
    used, seconds = in_child(_built, size, n)
    raw = 2 * n * size.n_tokens * sum(size.width for _ in size.levels) * 4
    note = f"built in {seconds.wall:.0f} s by an encoder that costs nothing"
    name = f"peak memory of building a bank of {n} + {n} entries, bfloat16"
    yield Row(name, "raw embeddings held at once", used / 1e9, raw / 1e9, note=note, unit="GB")


def _built(size: Size, n: int) -> tuple[int, Spent]:
    encoder, images = Patches(size), Images(n, size.side)
    before = peak_bytes()
    build = timed(
        lambda: build_bank(encoder, images, size.components, {}, dtype=torch.bfloat16, batch_size=4)
    )
    seconds, _ = build()
    return peak_bytes() - before, seconds
