"""Coil combination, and sensitivity maps of undersampled slices, cached on disk."""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrisem.errors import InputError
from mrisem.physics.espirit import check_calibration, espirit

# Side of the grid on which eigenvectors are computed. They vary as slowly as an ESPIRiT kernel is
# narrow (6 samples), so 64 points resolve them: tests/physics/test_espirit.py compares with maps
# computed at every pixel.
_GRID = 64
# Power iterations of sigpy's estimator; 30 and 100 give the same maps.
_SIGPY_ITERATIONS = 30
# More calibration lines than these make the decomposition slower and the maps no better.
_MAX_CALIBRATION = 32


def root_sum_of_squares(images: Tensor) -> Tensor:
    """Combine coil images by magnitude.

    Args:
        images: ``(..., coil, y, x)`` complex or real.

    Returns:
        ``(..., y, x)`` real.

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


def estimate_sensitivity_maps(
    masked_kspace: Tensor,
    calibration_lines: int,
    cache_folder: Path | None = None,
    *,
    estimator: str = "torch",
    crop: float = 0.0,
    threshold: float = 0.02,
    kernel_width: int = 6,
) -> Tensor:
    """Estimate coil sensitivities from the central k-space lines by ESPIRiT.

    1. The chosen estimator (`ESTIMATORS`), on a coarse grid, for all slices that are not cached.
    2. Periodic cubic splines to the size of the image, normalised there. The phase is relative to
       the strongest combination of all coils, which seldom vanishes: smooth enough to interpolate.

    Source: Uecker et al., Magn Reson Med 71:990 (2014).

    Args:
        masked_kspace: ``(batch, coil, y, x)`` complex64.
        calibration_lines: number of fully sampled lines around the centre, of all slices.
        cache_folder: where results are kept, slice by slice, under a hash of everything they depend
            on; None: not.
        estimator: ``torch`` (ours) or ``sigpy``.
        crop: maps are zero where the largest eigenvalue is below. 0 keeps the whole field of view,
            so that no anatomy is cut: sensitivities outside the body do no harm.
        threshold: singular values of the calibration matrix below that share of the largest count
            as noise.
        kernel_width: in k-space samples.

    Returns:
        ``(batch, coil, y, x)`` complex64 of unit root-sum-of-squares inside the support.

    Raises:
        InputError: when there are too few calibration lines, nothing was measured on them, or the
            estimator has no such name.
    """
    check_estimator(estimator)
    _, n_coils, height, width = masked_kspace.shape
    if n_coils == 1:
        return torch.ones_like(masked_kspace)
    n_lines = min(calibration_lines, _MAX_CALIBRATION, height, width)
    calibration = _central(masked_kspace, n_lines)
    check_calibration(calibration, kernel_width)
    compute = partial(ESTIMATORS[estimator], threshold=threshold, kernel_width=kernel_width)
    key = repr((estimator, _version(estimator), threshold, kernel_width, _GRID))
    if cache_folder is None:
        coarse = compute(calibration)
    else:
        coarse = _cached(calibration, compute, key, Path(cache_folder))
    return _interpolate(coarse, (height, width), crop)


def check_estimator(name: str) -> None:
    """Refuse an estimator of sensitivity maps that does not exist."""
    if name not in ESTIMATORS:
        raise InputError(f"data.sensitivity_maps must be one of {[*ESTIMATORS]}, got {name!r}")


def _central(kspace: Tensor, n: int) -> Tensor:
    """``(..., n, n)``: central block, the sample ``n // 2`` stays the centre."""
    top, left = (size // 2 - n // 2 for size in kspace.shape[-2:])
    return kspace[..., top : top + n, left : left + n].contiguous()


def _by_torch(calibration: Tensor, *, threshold: float, kernel_width: int) -> Tensor:
    """``(batch, coil + 1, g, g)``: the maps on the coarse grid, then the largest eigenvalue."""
    size = (_GRID, _GRID)
    maps, eigenvalue = espirit(calibration, size, threshold=threshold, kernel_width=kernel_width)
    return torch.cat([maps, eigenvalue[:, None]], dim=1)


def _by_sigpy(calibration: Tensor, *, threshold: float, kernel_width: int) -> Tensor:
    """As `_by_torch`, slice by slice through `sigpy.mri.app.EspiritCalib`.

    sigpy sets the maps' phase relative to the first coil; a single coil may vanish somewhere and
    tear the phase there. So the coils are rotated until the first is the strongest combination.
    """
    import sigpy
    from sigpy.mri.app import EspiritCalib

    results = []
    for samples in calibration.cpu():
        flat = samples.flatten(1).to(torch.complex128)
        rotation = torch.linalg.eigh(flat @ flat.mH).eigenvectors.flip(1).to(torch.complex64)
        rotated = torch.einsum("cv,cyx->vyx", rotation.conj(), samples).numpy()
        app = EspiritCalib(
            sigpy.resize(rotated, (len(rotated), _GRID, _GRID)),
            calib_width=samples.shape[-1],
            thresh=threshold,
            kernel_width=kernel_width,
            crop=-1,
            max_iter=_SIGPY_ITERATIONS,
            output_eigenvalue=True,
            show_pbar=False,
        )
        maps, eigenvalue = (torch.from_numpy(np.ascontiguousarray(part)) for part in app.run())
        maps = torch.einsum("cv,vyx->cyx", rotation, maps.to(torch.complex64))
        results.append(torch.cat([maps, eigenvalue.reshape(1, _GRID, _GRID).to(maps.dtype)]))
    return torch.stack(results).to(calibration.device)


# How sensitivity maps are estimated: calibration (batch, coil, n, n) -> (batch, coil + 1, g, g).
ESTIMATORS: dict[str, Callable[..., Tensor]] = {"torch": _by_torch, "sigpy": _by_sigpy}


def _version(estimator: str) -> str:
    """Version of what computes, for the cache's key; ours is counted up when its result changes."""
    return version("sigpy") if estimator == "sigpy" else "1"


def _cached(
    calibration: Tensor, compute: Callable[[Tensor], Tensor], key: str, folder: Path
) -> Tensor:
    """Load the coarse maps of these calibration regions; compute and keep those not there."""
    paths = [folder / f"{_hash(samples, key)}.safetensors" for samples in calibration]
    found = [_load(path) for path in paths]
    missing = [i for i, maps in enumerate(found) if maps is None]
    if missing:
        for i, maps in zip(missing, compute(calibration[missing]), strict=True):
            found[i] = maps
            _save(maps, paths[i])
    return torch.stack([maps.to(calibration.device) for maps in found if maps is not None])


def _hash(calibration: Tensor, key: str) -> str:
    """Hash of the calibration region of one slice and of the settings."""
    content = hashlib.sha256(calibration.cpu().numpy().tobytes())
    content.update(repr((tuple(calibration.shape), key)).encode())
    return content.hexdigest()


def _load(path: Path) -> Tensor | None:
    """Read the coarse maps of one slice; None, with a warning, where they are damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        return None
    try:
        return torch.view_as_complex(load_file(path)["maps"])
    except (SafetensorError, KeyError, RuntimeError) as error:
        warnings.warn(f"damaged sensitivity maps {path} are rebuilt: {error}", stacklevel=4)
        return None


def _save(maps: Tensor, path: Path) -> None:
    """Write the coarse maps of one slice; readers see them whole or not at all."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    save_file({"maps": torch.view_as_real(maps.cpu()).contiguous()}, unfinished)
    unfinished.replace(path)


def _interpolate(coarse: Tensor, size: tuple[int, int], crop: float) -> Tensor:
    """``(batch, coil, y, x)``: coarse maps at the image's size, unit inside the support."""
    row, column = (_spline_matrix(n, coarse) for n in size)
    fine = row @ coarse @ column.T
    maps, eigenvalue = fine[:, :-1], fine[:, -1:].real
    norm = root_sum_of_squares(maps)[:, None]
    support = (norm > 0) & ((eigenvalue > crop) if crop > 0 else torch.ones_like(norm).bool())
    return torch.where(support, maps / norm.clamp_min(1e-12), 0)


def _spline_matrix(n: int, like: Tensor) -> Tensor:
    """``(n, _GRID)``: periodic cubic interpolation, centre ``n // 2`` on ``_GRID // 2``."""
    knot = torch.arange(_GRID, dtype=torch.float64)
    position = (torch.arange(n, dtype=torch.float64) - n // 2) * (_GRID / n) + _GRID // 2
    weights = torch.linalg.solve(
        _spline(knot[:, None] - knot), _spline(position[:, None] - knot), left=False
    )
    return weights.to(like)


def _spline(distance: Tensor) -> Tensor:
    """Cubic B-spline of the distance on the circle of ``_GRID`` knots."""
    d = (distance - _GRID * (distance / _GRID).round()).abs()
    return torch.where(d < 1, 2 / 3 - d**2 + d**3 / 2, (2 - d).clamp_min(0) ** 3 / 6)
