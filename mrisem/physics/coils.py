"""Coil combination, and sensitivity maps of undersampled slices, cached on disk."""

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

# Side of the grid on which eigenvectors are computed. They vary as slowly as an ESPIRiT kernel is
# narrow (6 samples), so 64 points resolve them: tests/physics/test_espirit.py compares with maps
# computed at every pixel.
_GRID = 64
# Power iterations of sigpy's estimator; 30 and 100 give the same maps.
_SIGPY_ITERATIONS = 30
# More calibration lines than these make the decomposition slower and the maps no better.
_MAX_CALIBRATION = 32


def root_sum_of_squares(images: Tensor) -> Tensor:
    """Combine coil images by magnitude: ``(..., coil, y, x)`` -> ``(..., y, x)`` real.

    >>> root_sum_of_squares(torch.tensor([3.0, 4.0]).reshape(2, 1, 1))
    tensor([[5.]])
    """
    return images.abs().square().sum(dim=-3).sqrt()


def combine(images: Tensor, sensitivity_maps: Tensor) -> Tensor:
    """Combine coil images with their sensitivities, ``sum_c conj(S_c) x_c``.

    Args:
        images: ``(..., coil, y, x)`` complex.
        sensitivity_maps: ``(..., coil, y, x)`` complex, of unit root-sum-of-squares.

    Returns:
        ``(..., y, x)`` complex.
    """
    return (sensitivity_maps.conj() * images).sum(dim=-3)


def virtual_coils(calibration: Tensor, n: int) -> Tensor:
    """Return the ``n`` combinations of coils that hold most of the signal.

    Coil compression by singular values (Buehrer et al., Magn Reson Med 57:1131, 2007): of the
    calibration samples as a matrix ``(coil, sample)``, the left singular vectors of the largest
    singular values.

    Args:
        calibration: ``(coil, y, x)`` complex, the centre of k-space.
        n: number of virtual coils, at most that of coils.

    Returns:
        ``(n, coil)`` complex, orthonormal rows: times the coils' k-space, that of the virtual ones.

    >>> same = torch.ones(4, 2, 3, dtype=torch.complex64)  # four coils that see the same
    >>> (virtual_coils(same, 1) @ same.flatten(1)).abs().unique().item()
    2.0
    """
    samples = calibration.flatten(1)
    vectors = torch.linalg.eigh(samples @ samples.mH).eigenvectors  # by rising eigenvalue
    return vectors[:, -n:].flip(1).mH.contiguous()


def estimate_sensitivity_maps(
    masked_kspace: Tensor,
    calibration_lines: int,
    cache_folder: Path | None = None,
    *,
    estimator: str = "torch",
) -> Tensor:
    """Estimate coil sensitivities from the central k-space lines by ESPIRiT.

    `estimate_coarse_maps`, then `interpolate_maps` to the size of the k-space. The whole field of
    view is kept, so that no anatomy is cut: sensitivities outside the body do no harm.

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
    """Estimate coil sensitivities on a coarse grid, by the chosen one of `ESTIMATORS`.

    Source: Uecker et al., Magn Reson Med 71:990 (2014).

    Args:
        masked_kspace: ``(batch, coil, y, x)`` complex64.
        calibration_lines: number of fully sampled lines around the centre, of all slices.
        cache_folder: where results are kept, slice by slice, under a hash of everything they depend
            on; None: not.
        estimator: ``torch`` (ours) or ``sigpy``.

    Returns:
        ``(batch, coil, g, g)`` complex64; of a single coil ones, ``(batch, 1, 1, 1)``.

    Raises:
        InputError: when there are too few calibration lines, nothing was measured on them, the maps
            are not finite, or the estimator has no such name.
    """
    if estimator not in ESTIMATORS:
        raise InputError(f"data.sensitivity_maps must be one of {[*ESTIMATORS]}, got {estimator!r}")
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
            "sensitivity maps must have a solution, the decomposition of the calibration lines "
            f"failed ({' '.join(str(error).split())}); leave the scan out"
        ) from error
    if not bool(torch.isfinite(torch.view_as_real(coarse)).all()):
        raise InputError(
            "sensitivity maps must be finite, the estimator gave NaN or infinity; take another "
            f"than data.sensitivity_maps={estimator}, or leave the scan out"
        )
    return coarse


def interpolate_maps(coarse: Tensor, size: tuple[int, int], n_rows: int | None = None) -> Tensor:
    """Bring coarse maps to the size of the image by periodic cubic splines, and normalise them.

    Their phase is relative to the strongest combination of all coils, which seldom vanishes: smooth
    enough to interpolate.

    Args:
        coarse: ``(batch, coil, g, g)`` complex64, of `estimate_coarse_maps`.
        size: ``(y, x)`` of the field of view that they cover.
        n_rows: central rows of it that are wanted; None: all.

    Returns:
        ``(batch, coil, y, x)`` complex64 of unit root-sum-of-squares.

    >>> interpolate_maps(torch.ones(2, 1, 1, 1, dtype=torch.complex64), (4, 3)).shape
    torch.Size([2, 1, 4, 3])
    """
    if coarse.shape[1:] == (1, 1, 1):  # a single coil: not estimated
        return coarse.new_ones(len(coarse), 1, n_rows or size[0], size[1])
    row, column = (_spline_matrix(n, coarse) for n in size)
    if n_rows is not None:
        row = center_crop(row, (n_rows, row.shape[1]))
    maps = row @ coarse @ column.T
    return maps / root_sum_of_squares(maps)[:, None].clamp_min(1e-12)


def _by_torch(calibration: Tensor) -> Tensor:
    """``(batch, coil, g, g)``: the maps on the coarse grid."""
    return espirit(calibration, (_GRID, _GRID))[0]


def _by_sigpy(calibration: Tensor) -> Tensor:
    """As `_by_torch`, slice by slice through `sigpy.mri.app.EspiritCalib`.

    sigpy sets the maps' phase relative to the first coil; a single coil may vanish somewhere and
    tear the phase there. So the coils are rotated until the first is the strongest combination.
    """
    import sigpy
    from sigpy.mri.app import EspiritCalib

    check_calibration(calibration, KERNEL_WIDTH)
    results = []
    for samples in calibration.cpu():
        flat = samples.flatten(1).to(torch.complex128)
        rotation = torch.linalg.eigh(flat @ flat.mH).eigenvectors.flip(1).to(torch.complex64)
        rotated = torch.einsum("cv,cyx->vyx", rotation.conj(), samples).numpy()
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


# How sensitivity maps are estimated: calibration (batch, coil, n, n) -> (batch, coil, g, g).
ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {"torch": _by_torch, "sigpy": _by_sigpy}


def _cached(calibration: Tensor, estimator: str, folder: Path) -> Tensor:
    """Load the coarse maps of these calibration regions; compute and keep those not there."""
    # ours is counted up when its result or the file's layout changes
    number = version("sigpy") if estimator == "sigpy" else "2"
    key = repr((estimator, number, _GRID, THRESHOLD, KERNEL_WIDTH, tuple(calibration.shape[1:])))
    paths = []
    for samples in calibration:
        content = samples.cpu().numpy().tobytes() + key.encode()
        paths.append(folder / f"{hashlib.sha256(content).hexdigest()}.safetensors")
    n_coils = calibration.shape[1]
    loaded = {i: _load(path, n_coils) for i, path in enumerate(paths)}
    stored = {i: maps for i, maps in loaded.items() if maps is not None}
    missing = [i for i in range(len(paths)) if i not in stored]
    if missing:
        computed = ESTIMATORS[estimator](calibration[missing])
        for i, maps in zip(missing, computed, strict=True):
            stored[i] = maps
            _save(maps, paths[i])
    return torch.stack([stored[i].to(calibration.device) for i in range(len(paths))])


def _load(path: Path, n_coils: int) -> Tensor | None:
    """Read the coarse maps of one slice; None, with a warning, where they are damaged."""
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
    """Write the coarse maps of one slice; readers see them whole or not at all."""
    from safetensors.torch import save_file

    with whole(path) as partial:
        save_file({"maps": torch.view_as_real(maps.cpu()).contiguous()}, partial)


def _spline_matrix(n: int, like: Tensor) -> Tensor:
    """``(n, _GRID)``: periodic cubic interpolation, centre ``n // 2`` on ``_GRID // 2``."""
    knot = torch.arange(_GRID, dtype=torch.float64)
    position = (torch.arange(n, dtype=torch.float64) - n // 2) * (_GRID / n) + _GRID // 2
    between_knots, between_points = (
        cubic_spline(d - _GRID * (d / _GRID).round())
        for d in (knot[:, None] - knot, position[:, None] - knot)
    )
    return torch.linalg.solve(between_knots, between_points, left=False).to(like)


def cubic_spline(distance: Tensor) -> Tensor:
    """Cubic B-spline of the distance from its centre, in knots."""
    d = distance.abs()
    return torch.where(d < 1, 2 / 3 - d**2 + d**3 / 2, (2 - d).clamp_min(0) ** 3 / 6)
