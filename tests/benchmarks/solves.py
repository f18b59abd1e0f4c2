"""Rows of the data-consistency solve: its operator, and where it starts in a fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from measure import Row, Setting, alternate, apart, timed
from scans import simulated_batch
from torch import Tensor
from torch.fft import fft2, ifft2, ifftshift

from mrisem.networks.stacked import stack
from mrisem.networks.unrolled import Unrolled
from mrisem.physics.sense import Measurement, SenseOperator
from mrisem.physics.solvers import Solution, conjugate_gradient
from mrisem.tasks.curves import FitCurves
from mrisem.tasks.fitting import PerScanFit, ScanFit
from mrisem.tasks.samples import split_samples
from mrisem.types import Batch

_WEIGHT = 0.01
# Errors of the image and of the gradient that a solve is to reach, relative.
_ERRORS = {"image": 3e-3, "gradient": 1e-2}
_CONVERGED = 100  # iterations


def plain_normal(maps: Tensor, mask: Tensor) -> Callable[[Tensor], Tensor]:
    """``A^H A`` as the formula stands: 2-D transforms of all coil images there and back.

    Centring is left out: a shift of the image changes k-space by a phase, which cancels.
    """
    sampled, conjugate = ifftshift(mask, dim=(-2, -1))[:, None], maps.conj().resolve_conj()
    return lambda image: (conjugate * ifft2(sampled * fft2(maps * image[:, None]))).sum(1)


def solve(
    normal: Callable[[Tensor], Tensor], right: Tensor, iterations: int = 10, start: Tensor = None
) -> Solution:
    """``(A^H A + .01) x = b`` by that many iterations."""
    return conjugate_gradient(
        lambda x: normal(x) + _WEIGHT * x, right, start, tolerance=0, max_iterations=iterations
    )


def solve_rows(setting: Setting) -> Iterator[Row]:
    """Ten iterations at the size of a fastMRI knee, against the plain operator."""
    n_coils, size, rows = setting.size((15, (640, 368), 320), (3, (48, 32), 24))
    whole = simulated_batch(1, n_coils, size)
    target = simulated_batch(1, n_coils, size, rows)
    for kept, batch in (("all rows", whole), (f"the target's {rows} rows", target)):
        yield _solve_row(f"whole lines, {kept}", batch, batch.mask, whole, whole.mask, setting)
        masks = [split_samples(b, b.mask, 0.4, "split", 0, "lines")[0] for b in (batch, whole)]
        yield _solve_row(f"points held out, {kept}", batch, masks[0], whole, masks[1], setting)


def _solve_row(
    case: str, batch: Batch, mask: Tensor, whole: Batch, full_mask: Tensor, setting: Setting
) -> Row:
    ours = SenseOperator(batch.sensitivity_maps, mask)
    plain = plain_normal(whole.sensitivity_maps, full_mask)
    right = ours.adjoint(batch.masked_kspace)
    full_right = SenseOperator(whole.sensitivity_maps, full_mask).adjoint(whole.masked_kspace)
    calls = {
        "ours": timed(lambda: solve(ours.normal, right)),
        "plain": timed(lambda: solve(plain, full_right)),
    }
    seconds, solutions = alternate(setting.turns, calls)
    a, b = (solutions[name] for name in ("ours", "plain"))
    coils, y, x = whole.sensitivity_maps.shape[1:]
    return Row(
        f"solve, 10 iterations, {coils} x {y} x {x}, {case}",
        "2-D FFTs of all rows",
        seconds["ours"],
        seconds["plain"],
        apart(a.image, b.image) if batch is whole else None,
        f"residuals {float(a.residual):.1e} and {float(b.residual):.1e}",
        asked=None if batch is whole else 3,  # fits and reconstructions take the target's rows
    )


class Step(NamedTuple):
    """Solutions of one step of a fit, each ``(1, y, x)``, and the images they are the nearest to.

    Args:
        image: of the solve, x.
        gradient: of the solve for the gradient, v; of the step before.
    """

    image: Tensor
    gradient: Tensor | None


class Recorder(FitCurves):
    """Keeps the solutions of the last stage."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.batch, self.steps = batch, []

    def add(self, infos: tuple, iteration: int, values: dict[str, Tensor]) -> None:
        """Note what the batch's measurement remembers."""
        (seen,) = [m for m in self.batch.measurements.values() if m.solves]
        last = seen.solves[max(seen.solves)]
        gradient = None if last.gradient is None else last.gradient.clone()
        self.steps.append(Step(last.image.detach().clone(), gradient))


def start_rows(setting: Setting) -> Iterator[Row]:
    """Iterations to the same error in a demo fit: anew, and from the last step's solution."""
    n_coils, side, steps = setting.size((8, 192, 12), (3, 32, 3))
    batch = simulated_batch(1, n_coils, (side, side))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Unrolled(2, 8, setting.size(4, 1), _WEIGHT, _CONVERGED, 1e-6, 1e-6)
    network.log_lambdas.requires_grad_(False)
    recorder = Recorder(batch)
    fit = ScanFit(stack(network, 1), batch, 0, curves=recorder)
    fit.run(PerScanFit(iterations=steps, log_every=1, progress=False))
    (seen,) = [m for m in batch.measurements.values() if m.solves]
    for name, error in _ERRORS.items():
        exact = [x for step in recorder.steps if (x := getattr(step, name)) is not None]
        counts = [_iterations(seen, name, error, *pair) for pair in pairwise(exact)]
        cold, warm = (sorted(each)[len(counts) // 2] for each in zip(*counts, strict=True))
        yield Row(
            f"iterations of the solve for the {name} in a fit, to {100 * error:g} %",
            "each solve starts anew",
            warm,
            cold,
            note=f"median of {len(counts)} steps, 1 x {n_coils} x {side} x {side}",
            unit="",
        )


def _iterations(
    seen: Measurement, name: str, error: float, last: Tensor, exact: Tensor
) -> tuple[int, int]:
    """Iterations to an error, anew and from the last solution."""
    right = seen.normal(exact) + _WEIGHT * exact
    # a solve for an image starts anew from the network's, one for a gradient from zero
    anew = (right - seen.zero_filled) / _WEIGHT if name == "image" else torch.zeros_like(exact)
    return tuple(
        next(
            (n for n in range(1, _CONVERGED)
             if apart(solve(seen.normal, right, n, start).image, exact) <= error),
            _CONVERGED,
        )
        for start in (anew, last)
    )  # fmt: skip
