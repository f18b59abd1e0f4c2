"""Coil sensitivities by ESPIRiT: batched, in torch, on any device, on a grid of any size."""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor

from mrisem.errors import InputError

# Entries of pointwise matrices that are held at once: 2 MiB stay in a processor's cache, a GPU
# wants long batches.
_CHUNK_CPU, _CHUNK_GPU = 2**18, 2**24
# Two squarings and 16 products are 64 power iterations: on a measured 8-coil brain the second
# eigenvalue is at most .85 of the first in the head, and .85^64 = 3e-5 rad.
_SQUARINGS, _ITERATIONS = 2, 16
_TINY = 1e-30
THRESHOLD, KERNEL_WIDTH = 0.02, 6  # sigpy's defaults, too


def espirit(
    calibration: Tensor,
    size: tuple[int, int],
    *,
    threshold: float = THRESHOLD,
    kernel_width: int = KERNEL_WIDTH,
) -> tuple[Tensor, Tensor]:
    """Estimate coil sensitivities from a fully sampled block of k-space.

    1. Patches of ``kernel_width`` squared samples of all coils span the signal space; its projector
       ``P`` comes from the Gram matrix of the patches, less the singular values that are noise.
    2. A point at ``r`` gives the patch ``s_c exp(-2 pi i d r)``. Projected and brought back to the
       coils it is ``G(r) s`` with ``G_cc'(r) = 1/k^2 sum_dd' P_cd,c'd' exp(2 pi i (d - d') r)``: a
       Fourier series of ``(2 k - 1)^2`` terms, summed without transforming each kernel.
    3. The sensitivity at ``r`` is the eigenvector of ``G(r)`` of the largest eigenvalue, which is 1
       where one set of maps explains the data. Its phase is set so that the strongest combination
       of all coils sees a real, positive sensitivity.

    Source: Uecker et al., Magn Reson Med 71:990 (2014).

    Args:
        calibration: ``(batch, coil, y, x)`` complex, sides larger than ``kernel_width``; the sides
            may differ.
        size: ``(Y, X)`` of the maps, for the same field of view: the matrix, or any coarser grid.
        threshold: singular values below that share of the largest count as noise.
        kernel_width: ``k``, in k-space samples.

    Returns:
        Maps ``(batch, coil, Y, X)`` in the dtype of the data, of unit root-sum-of-squares, and the
        eigenvalue ``(batch, Y, X)``, real, in [0, 1]; it is small outside the object.

    Raises:
        InputError: when there are too few calibration lines or nothing was measured on them.

    >>> maps, eigenvalue = espirit(torch.ones(1, 1, 8, 8, dtype=torch.complex64), (2, 3))
    >>> maps.shape, eigenvalue.shape
    (torch.Size([1, 1, 2, 3]), torch.Size([1, 2, 3]))
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold must satisfy 0 < threshold < 1, got {threshold}; take 0.02")
    check_calibration(calibration, kernel_width)
    calibration = _in_range(calibration)
    calibration = calibration / calibration.abs().amax(dim=(1, 2, 3), keepdim=True)
    projector = _signal_projector(calibration, threshold, kernel_width)
    series = _fourier_series(projector, calibration.shape[1], kernel_width)
    vectors, eigenvalue = _sensitivities(series, size)
    maps = rearrange(vectors, "b y x c -> b c y x")
    seen = torch.einsum("bc,bcyx->byx", _strongest_combination(calibration).conj(), maps)
    return maps * torch.polar(torch.ones_like(eigenvalue), -seen.angle())[:, None], eigenvalue


def check_calibration(calibration: Tensor, kernel_width: int) -> None:
    """Refuse a block of k-space that no sensitivities can be estimated from."""
    if calibration.ndim != 4 or not calibration.is_complex():
        raise InputError(
            "calibration must be (batch, coil, y, x) complex, got "
            f"{tuple(calibration.shape)} {calibration.dtype}; add the axis that is missing"
        )
    lines = min(calibration.shape[-2:])
    if lines <= kernel_width:
        raise InputError(
            f"sensitivity maps need more than {kernel_width} fully sampled lines around the centre "
            f"of k-space, got {lines}; set mask.calibration_lines=24 or mask.center_fraction=0.08"
        )
    if not bool((calibration != 0).flatten(1).any(dim=1).all()):
        raise InputError(
            "k-space must not be zero throughout its centre: no coil sensitivity there"
        )


def _in_range(calibration: Tensor) -> Tensor:
    """Scale each slice by a power of two to about 1: complex division squares its divisor."""
    exponent = torch.frexp(calibration.abs().amax(dim=(1, 2, 3), keepdim=True)).exponent
    half = exponent // 2  # in two steps, since a float32 does not hold every power
    one = torch.ones_like(exponent, dtype=calibration.real.dtype)
    return calibration * torch.ldexp(one, -half) * torch.ldexp(one, half - exponent)


def _strongest_combination(calibration: Tensor) -> Tensor:
    """``(batch, coil)``: unit weights of the virtual coil with most energy, the largest positive.

    A single coil may vanish somewhere and tear the phase there, the combination does not.
    """
    samples = calibration.flatten(2)
    weights = torch.linalg.eigh(samples @ samples.mH).eigenvectors[..., -1]
    largest = weights.gather(1, weights.abs().argmax(dim=1, keepdim=True))
    return weights * largest.conj() / largest.abs()


def _signal_projector(calibration: Tensor, threshold: float, width: int) -> Tensor:
    """``(batch, coil * k * k, coil * k * k)``: the projector onto the space of the patches."""
    patches = calibration.unfold(-2, width, 1).unfold(-2, width, 1)
    columns = rearrange(patches, "b c y x i j -> b (c i j) (y x)")
    short = columns if columns.shape[1] <= columns.shape[2] else columns.mH
    power, vectors = torch.linalg.eigh(short @ short.mH)
    keep = power > threshold**2 * power[..., -1:]
    if short is columns:
        basis = vectors * keep[:, None]
    else:
        # right singular vectors to left ones: u = A v / sigma
        basis = columns @ (vectors * torch.where(keep, power, torch.inf).rsqrt()[:, None])
    return basis @ basis.mH


def _fourier_series(projector: Tensor, n_coils: int, width: int) -> Tensor:
    """``(batch, lag_y, lag_x, coil, coil)``: coefficients of ``G``, lags from ``1 - k`` up."""
    offset = torch.arange(width, device=projector.device)
    lag = torch.arange(1 - width, width, device=projector.device)
    same = (offset[:, None] - offset == lag[:, None, None]).to(projector.dtype)
    split = {"c": n_coils, "d": n_coils, "i": width, "j": width, "m": width}
    apart = rearrange(projector, "b (c i j) (d m n) -> b c d i m j n", **split)
    return torch.einsum("pim,qjn,bcdimjn->bpqcd", same, same, apart) / width**2


def _sensitivities(series: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """``(batch, Y, X, coil)`` and ``(batch, Y, X)``: at every point, a block of rows at a time."""
    n_coils = series.shape[-1]
    row, column = (_harmonics(n, series) for n in size)
    along_x = torch.einsum("xq,bpqcd->bpxcd", column, series).flatten(2)
    chunk = _CHUNK_CPU if series.device.type == "cpu" else _CHUNK_GPU
    n_rows = max(1, chunk // (len(series) * size[1] * n_coils**2))
    parts = [
        _largest_eigenvector((rows @ along_x).unflatten(2, (size[1], n_coils, n_coils)))
        for rows in row.split(n_rows)
    ]
    vectors, values = zip(*parts, strict=True)
    return torch.cat(vectors, dim=1), torch.cat(values, dim=1)


def _largest_eigenvector(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """``(..., n)`` of unit norm and ``(...)``: power iteration, on powers of the matrix.

    Starts from the largest column of the power, whose overlap with the solution is at least
    ``1 / sqrt(n)`` where one eigenvalue dominates. Matrix products alone: for matrices as small and
    as many as these, several times faster than an eigendecomposition.

    Args:
        matrices: ``(..., n, n)`` Hermitian, positive semi-definite.
    """
    power = matrices
    for _ in range(_SQUARINGS):
        power = power @ power
        power = power / _diagonal(power).sum(-1).clamp_min(_TINY)[..., None, None]
    column = _diagonal(power).argmax(-1)[..., None, None].expand(*power.shape[:-1], 1)
    vector = power.gather(-1, column)
    for _ in range(_ITERATIONS):
        vector = power @ vector
        energy = vector.real.square() + vector.imag.square()  # vector_norm takes 10 times as long
        vector = vector * energy.sum(-2, keepdim=True).clamp_min(_TINY).rsqrt()
    value = (vector.mH @ matrices @ vector).real[..., 0, 0]
    return vector[..., 0], value.clamp(0, 1)


def _diagonal(matrices: Tensor) -> Tensor:
    """``(..., n)`` real."""
    return matrices.diagonal(dim1=-2, dim2=-1).real


def _harmonics(n: int, series: Tensor) -> Tensor:
    """``(n, lag)``: ``exp(2 pi i lag r)`` at the points ``r = (p - n // 2) / n``."""
    n_lags = series.shape[1]
    lag = torch.arange(n_lags, device=series.device, dtype=torch.float64) - n_lags // 2
    point = (torch.arange(n, device=series.device, dtype=torch.float64) - n // 2) / n
    phase = 2 * math.pi * point[:, None] * lag
    return torch.polar(torch.ones_like(phase), phase).to(series.dtype)
