"""Rows of growth: how time and memory of a step grow with slices, coils, matrix and bank."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from measure import Row, Setting, Spent, in_child, peak_bytes, timed
from priors import FULL, QUICK, TAU, WEIGHTS, Patches, Size, our_step
from scans import simulated_batch
from steps import fit_step

from mrisem.networks.stacked import stack
from mrisem.networks.unrolled import Unrolled
from mrisem.prior.image.bank import EmbeddingBank, LevelBank
from mrisem.prior.image.prior import SemanticPrior

_MEMORY = 24 * 2**30


class Point(NamedTuple):
    """What a step of one size cost.

    Args:
        spent: seconds of a step.
        used: bytes of peak memory over what the imported packages hold.
        before: bytes that these hold.
    """

    spent: Spent
    used: int
    before: int


def fit_point(n_slices: int = 1, n_coils: int = 8, side: int = 192) -> Point:
    """A step of the demo's unrolled network, all its weights fitted."""
    before = peak_bytes()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Unrolled(3, 8, 4)
    batch = simulated_batch(n_slices, n_coils, (side, side))
    spent, _ = fit_step(stack(network, n_slices), batch, steps=4)
    return Point(spent, peak_bytes() - before, before)


def bank_point(n: int, size: Size = FULL) -> Point:
    """Loss and gradient with a bfloat16 bank of n entries, behind an encoder that costs nothing."""
    before = peak_bytes()
    generator = torch.Generator().manual_seed(0)
    levels = {}
    for level, d in zip(size.levels, size.components, strict=True):
        block = torch.randn(10, size.n_tokens * d, generator=generator).bfloat16()
        entries = block.repeat(-(-n // 10), 1)[:n]
        basis = torch.linalg.qr(torch.randn(size.width, d, generator=generator))[0]
        levels[level] = LevelBank(torch.zeros(size.width), basis, entries, n // 2, 1.0)
    prior = SemanticPrior(Patches(size), EmbeddingBank(levels), WEIGHTS, TAU)
    image = torch.rand(1, size.side, size.side, generator=generator)
    step = our_step(prior)
    spent = min(timed(lambda: step(image))()[0] for _ in range(5))
    return Point(spent, peak_bytes() - before, before)


def growth_rows(setting: Setting) -> Iterator[Row]:
    """One row an axis: the largest size against the smallest times their ratio."""
    size, pick = setting.size(FULL, QUICK), setting.size
    fit = partial(fit_point, side=pick(192, 32))
    axes: dict[str, tuple[Sequence[int], float, Callable[..., Point], str]] = {
        "slices": (pick((1, 4, 16, 64), (1, 2)), 1, fit, "n_slices"),
        "coils": (pick((4, 8, 16, 32), (4, 8)), 1, fit, "n_coils"),
        "matrix": (pick((128, 192, 256, 384, 512), (32, 48)), 2, fit, "side"),
        "bank": (pick((100, 500, 2500, 20000), (10, 40)), 1, partial(bank_point, size=size), "n"),
    }
    for name, (numbers, proportion, measure, argument) in axes.items():
        points = [in_child(partial(measure, **{argument: n})) for n in numbers]
        yield growth_row(name, numbers, proportion, points)


def growth_row(
    name: str, numbers: Sequence[int], proportion: float, points: Sequence[Point]
) -> Row:
    """Fit exponents to all points, and the largest size that 24 GiB hold."""
    costs = (
        [p.spent.wall for p in points],
        [p.spent.cpu for p in points],
        [p.used for p in points],
    )
    wall, cpu, memory = (exponent(numbers, values) for values in costs)
    largest = largest_size(numbers, points, proportion)
    listed = ", ".join(
        f"{n}: {p.spent.wall:.3g} s {p.used / 1e9:.2g} GB"
        for n, p in zip(numbers, points, strict=True)
    )
    note = (
        f"exponents: {wall:.2f} (wall), {cpu:.2f} (CPU), {memory:.2f} (peak memory); "
        f"largest in 24 GiB {largest:.2g} (extrapolated); {listed}"
    )
    factor = (numbers[-1] / numbers[0]) ** proportion
    of = "n^2" if proportion == 2 else "n"
    step = "prior's step" if name == "bank" else "demo step"
    return Row(
        f"growth of a {step} with {name}, {numbers[0]} to {numbers[-1]}",
        f"the smallest, in proportion to {of}",
        points[-1].spent,
        points[0].spent * factor,
        note=note,
    )


def exponent(numbers: Sequence[int], values: Sequence[float]) -> float:
    """Slope of log(value) over log(number), least squares."""
    return float(np.polyfit(np.log(numbers), np.log(np.maximum(values, 1e-9)), 1)[0])


def largest_size(numbers: Sequence[int], points: Sequence[Point], proportion: float) -> float:
    """Extrapolate memory, a constant and a part in proportion, to 24 GiB; NaN: it did not grow."""
    powers = np.array(numbers, dtype=float) ** proportion
    slope, constant = np.polyfit(powers, [p.used for p in points], 1)
    room = _MEMORY - points[-1].before - constant
    return float((room / slope) ** (1 / proportion)) if slope > 0 else float("nan")
