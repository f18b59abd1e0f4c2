"""Combine coil images; estimate the sensitivity maps of undersampled slices, cached on disk."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrisem.errors import InputError
from mrisem.files import reading, whole
from mrisem.physics.espirit import KERNEL_WIDTH, THRESHOLD, check_calibration, espirit
from mrisem.physics.fourier import center_crop

# Side of the grid on which eigenvectors are computed. An ESPIRiT kernel is 6 k-space samples wide,
# so the maps vary slowly and 64 points resolve them: tests/physics/test_espirit.py compares with
# maps computed at every pixel.
_GRID = 64
# Power iterations of sigpy's estimator: 100 give the same maps as 30.
_SIGPY_ITERATIONS = 30
# Most calibration lines that are used: more make the decomposition slower, not the maps better.
_MAX_CALIBRATION = 32


def root_sum_of_squares(images: Tensor) -> Tensor:
    """Root of the sum of squares over coils: ``(..., coil, y, x)`` -> ``(..., y, x)`` real.

    >>> root_sum_of_squares(torch.tensor([3.0, 4.0]).reshape(2, 1, 1))
    tensor([[5.]])
    """
    return images.abs().square().sum(dim=-3).sqrt()


def combine(images: Tensor, sensitivity_maps: Tensor) -> Tensor:
    """Combine coil images with their sensitivities, ``sum_c conj(S_c) x_c``.

    Args:
        images: ``(..., coil, y, x)`` complex.
        sensitivity_maps: ``(..., coil, y, x)`` complex S, of unit root-sum-of-squares.

    Returns:
        ``(..., y, x)`` complex.
    """
    return (sensitivity_maps.conj() * images).sum(dim=-3)


def virtual_coils(calibration: Tensor, n: int) -> Tensor:
    """Find the ``n`` combinations of coils that hold most of the signal.

    Coil compression by singular values (Buehrer et al., Magn Reson Med 57:1131, 2007): the
    calibration samples form a matrix ``(coil, sample)``; the combinations are its left singular
    vectors with the largest singular values.

    Args:
        calibration: ``(coil, y, x)`` complex, the centre of k-space.
        n: number of virtual coils, at most the number of coils.

    Returns:
        ``(n, coil)`` complex with orthonormal rows. Its product with the k-space of the coils is
        the k-space of the virtual coils.

    >>> same = torch.ones(4, 2, 3, dtype=torch.complex64)  # four coils that see the same
    >>> (virtual_coils(same, 1) @ same.flatten(1)).abs().unique().item()
    2.0
    """
    samples = calibration.flatten(1)
    # the left singular vectors of A are the eigenvectors of A A^H; eigh sorts them ascending
    vectors = torch.linalg.eigh(samples @ samples.mH).eigenvectors
    return vectors[:, -n:].flip(1).mH.contiguous()


def estimate_sensitivity_maps(
    masked_kspace: Tensor,
    calibration_lines: int,
    cache_folder: Path | None = None,
    *,
    estimator: str = "torch",
) -> Tensor:
    """Estimate coil sensitivities from the central k-space lines by ESPIRiT, at full size.

    `estimate_coarse_maps` followed by `interpolate_maps` to the size of the k-space; the arguments
    are those of `estimate_coarse_maps`. The maps cover the whole field of view, so that no anatomy
    is cut off: sensitivities outside the body do no harm.

    Returns:
        ``(batch, coil, y, x)`` complex64 of unit root-sum-of-squares.
    """
    coarse = estimate_coarse_maps(
        masked_kspace, calibration_lines, cache_folder, estimator=estimator
    )
    return interpolate_maps(coarse, (masked_kspace.shape[-2], masked_kspace.shape[-1]))


def estimate_coarse_maps(
    masked_kspace: Tensor,
    calibration_lines: int,
    cache_folder: Path | None = None,
    *,
    estimator: str = "torch",
) -> Tensor:
    """Estimate coil sensitivities by ESPIRiT on a coarse grid, from the calibration lines.

    Source: Uecker et al., Magn Reson Med 71:990 (2014).

    Args:
        masked_kspace: ``(batch, coil, y, x)`` complex64.
        calibration_lines: number of lines around the centre that every slice has fully sampled.
        cache_folder: folder that keeps the maps of each slice, under a hash of everything that they
            depend on; None: nothing is kept.
        estimator: name in `ESTIMATORS`: ``torch`` (ours) or ``sigpy``.

    Returns:
        ``(batch, coil, g, g)`` complex64; for a single coil ``(batch, 1, 1, 1)``, all one.

    Raises:
        InputError: when there are too few calibration lines, they hold no signal, the maps are not
            finite, or no estimator has that name.
    """
    if estimator not in ESTIMATORS:
        raise InputError(
            f"data.sensitivity_maps must be one of {[*ESTIMATORS]}, got {estimator!r}; set it to "
            "torch"
        )
    n, n_coils, height, width = masked_kspace.shape
    if n_coils == 1:
        return masked_kspace.new_ones(n, 1, 1, 1)
    n_lines = min(calibration_lines, _MAX_CALIBRATION, height, width)
    calibration = center_crop(masked_kspace, (n_lines, n_lines)).contiguous()
    try:
        if cache_folder is None:
            coarse = ESTIMATORS[estimator](calibration)
        else:
            coarse = _cached(calibration, estimator, Path(cache_folder))
    except (torch.linalg.LinAlgError, np.linalg.LinAlgError) as error:
        raise InputError(
            "calibration lines must have a singular value decomposition, got none "
            f"({' '.join(str(error).split())}); leave the scan out"
        ) from error
    if not bool(torch.isfinite(torch.view_as_real(coarse)).all()):
        raise InputError(
            f"sensitivity maps must be finite, got NaN or infinity from {estimator}; set "
            f"data.sensitivity_maps to another of {[*ESTIMATORS]}, or leave the scan out"
        )
    return coarse


def interpolate_maps(coarse: Tensor, size: tuple[int, int], n_rows: int | None = None) -> Tensor:
    """Interpolate coarse maps to the size of the image by periodic cubic splines; normalise them.

    The phase of the maps is relative to the strongest combination of all coils. That combination
    seldom vanishes, so the phase is smooth enough to interpolate.

    Args:
        coarse: ``(batch, coil, g, g)`` complex64, from `estimate_coarse_maps`.
        size: ``(y, x)``, matrix size of the field of view that the coarse maps cover.
        n_rows: number of central rows to return; None: all.

    Returns:
        ``(batch, coil, y, x)`` complex64 of unit root-sum-of-squares.

    >>> interpolate_maps(torch.ones(2, 1, 1, 1, dtype=torch.complex64), (4, 3)).shape
    torch.Size([2, 1, 4, 3])
    """
    if coarse.shape[1:] == (1, 1, 1):  # a single coil has no estimated map
        return coarse.new_ones(len(coarse), 1, n_rows or size[0], size[1])
    row, column = (_spline_matrix(n, coarse) for n in size)
    if n_rows is not None:
        row = center_crop(row, (n_rows, row.shape[1]))
    maps = row @ coarse @ column.T
    return maps / root_sum_of_squares(maps)[:, None].clamp_min(1e-12)


def _by_torch(calibration: Tensor) -> Tensor:
    """Estimate the coarse maps ``(batch, coil, g, g)`` by `espirit`."""
    return espirit(calibration, (_GRID, _GRID))[0]


def _by_sigpy(calibration: Tensor) -> Tensor:
    """Estimate the coarse maps ``(batch, coil, g, g)`` by `sigpy.mri.app.EspiritCalib`.

    sigpy makes the phase of the maps relative to the first coil. Where that coil has no signal the
    phase would jump. So the coils are first rotated to virtual coils, of which the first is the
    strongest combination, and the maps are rotated back.
    """
    import sigpy
    from sigpy.mri.app import EspiritCalib

    check_calibration(calibration, KERNEL_WIDTH)
    results = []
    for samples in calibration.cpu():
        flat = samples.flatten(1).to(torch.complex128)
        rotation = torch.linalg.eigh(flat @ flat.mH).eigenvectors.flip(1).to(torch.complex64)
        rotated = torch.einsum("cv,cyx->vyx", rotation.conj(), samples).numpy()
        # crop=-1 keeps the maps outside the object, as ours does
        maps = EspiritCalib(
            sigpy.resize(rotated, (len(rotated), _GRID, _GRID)),
            calib_width=samples.shape[-1],
            thresh=THRESHOLD,
            kernel_width=KERNEL_WIDTH,
            crop=-1,
            max_iter=_SIGPY_ITERATIONS,
            show_pbar=False,
        ).run()
        maps = torch.from_numpy(np.ascontiguousarray(maps)).to(torch.complex64)
        results.append(torch.einsum("cv,vyx->cyx", rotation, maps))
    return torch.stack(results).to(calibration.device)


# Each estimator: calibration block (batch, coil, n, n) -> coarse maps (batch, coil, g, g).
ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {"torch": _by_torch, "sigpy": _by_sigpy}


def _cached(calibration: Tensor, estimator: str, folder: Path) -> Tensor:
    """Load the coarse maps of calibration blocks from a folder; compute and store missing ones."""
    # The release of our estimator is raised when its result or the layout of the file changes.
    release = version("sigpy") if estimator == "sigpy" else "2"
    key = repr((estimator, release, _GRID, THRESHOLD, KERNEL_WIDTH, tuple(calibration.shape[1:])))
    paths = []
    for samples in calibration:
        content = samples.cpu().numpy().tobytes() + key.encode()
        paths.append(folder / f"{hashlib.sha256(content).hexdigest()}.safetensors")
    n_coils = calibration.shape[1]
    loaded = {index: _load(path, n_coils) for index, path in enumerate(paths)}
    stored = {index: maps for index, maps in loaded.items() if maps is not None}
    missing = [index for index in range(len(paths)) if index not in stored]
    if missing:
        computed = ESTIMATORS[estimator](calibration[missing])
        for index, maps in zip(missing, computed, strict=True):
            stored[index] = maps
            _save(maps, paths[index])
    return torch.stack([stored[index].to(calibration.device) for index in range(len(paths))])


def _load(path: Path, n_coils: int) -> Tensor | None:
    """Read the coarse maps of one slice; None without a file, or (with a warning) a damaged one."""
    from safetensors.torch import load_file

    if not path.exists():
        return None
    try:
        with reading(path, "whole sensitivity maps", "they are rebuilt"):
            maps = torch.view_as_complex(load_file(path)["maps"])
            if maps.shape != (n_coils, _GRID, _GRID) or not maps.abs().isfinite().all():
                raise ValueError(f"{tuple(maps.shape)}, or NaN")
    except InputError as error:
        warnings.warn(f"damaged sensitivity maps: {error}", stacklevel=4)
        return None
    return maps


def _save(maps: Tensor, path: Path) -> None:
    """Write the coarse maps of one slice; other processes see the whole file or none."""
    from safetensors.torch import save_file

    with whole(path) as partial:
        save_file({"maps": torch.view_as_real(maps.cpu()).contiguous()}, partial)


def _spline_matrix(n: int, like: Tensor) -> Tensor:
    """Make the ``(n, _GRID)`` matrix of periodic cubic interpolation from ``_GRID`` knots.

    The centre ``n // 2`` of the points lies on the centre ``_GRID // 2`` of the knots.
    """
    # Values v at the knots have the spline coefficients c with B_knots c = v, and the spline has
    # the values B_points c at the points: the matrix is B_points B_knots^-1.
    knot = torch.arange(_GRID, dtype=torch.float64)
    position = (torch.arange(n, dtype=torch.float64) - n // 2) * (_GRID / n) + _GRID // 2
    between_knots, between_points = (
        cubic_spline(offset - _GRID * (offset / _GRID).round())  # distances on a ring of knots
        for offset in (knot[:, None] - knot, position[:, None] - knot)
    )
    return torch.linalg.solve(between_knots, between_points, left=False).to(like)


def cubic_spline(distance: Tensor) -> Tensor:
    """Evaluate the cubic B-spline at a distance from its centre, in units of the knot spacing.

    >>> cubic_spline(torch.tensor([0.0, 1.0, 2.0])) * 6
    tensor([4., 1., 0.])
    """
    d = distance.abs()
    return torch.where(d < 1, 2 / 3 - d**2 + d**3 / 2, (2 - d).clamp_min(0) ** 3 / 6)
