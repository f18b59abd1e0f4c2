"""Prewhitening: combination of coils to channels whose noise is uncorrelated, of variance 1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.linalg import solve_triangular

from mrisem.data.readers.scan import Scan
from mrisem.errors import InputError


def whitening(noise: np.ndarray, n_coils: int, path: Path) -> np.ndarray:
    """Compute the whitening matrix ``L^-1`` from noise ``N``: ``N N^H / n = L L^H`` (Cholesky).

    Source: Pruessmann et al., Magn Reson Med 46:638 (2001), appendix on noise decorrelation.

    Args:
        noise: ``(coil, n)`` complex samples without signal.
        n_coils: number of coils of the k-space.
        path: file of the noise, for messages.

    Returns:
        ``(coil, coil)`` complex128.

    Raises:
        InputError: when the samples are not finite, too few, or of another number of coils.
    """
    # n_coils samples or fewer give a singular covariance
    is_valid = noise.ndim == 2 and noise.shape[0] == n_coils and np.isfinite(noise).all()
    if not is_valid or noise.shape[1] <= n_coils:
        raise InputError(
            f"noise must be (coil, n), finite, with n above the {n_coils} coils of the k-space, "
            f"got {noise.shape} in {path}; rewrite it, or set data.prewhiten=false"
        )
    samples = noise.astype(np.complex128)
    covariance = samples @ samples.conj().T / noise.shape[1]
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError as error:
        raise InputError(
            f"noise must have a covariance of full rank, got a coil without noise, or equal coils, "
            f"in {path}; set data.prewhiten=false"
        ) from error
    inverse: np.ndarray = solve_triangular(factor, np.eye(n_coils), lower=True)
    return inverse


def whiten(scan: Scan, path: Path) -> Scan:
    """Whiten k-space and sensitivity maps by the scan's noise; images are then in units of noise.

    Raises:
        InputError: when the noise does not fit, or an undersampled scan has a target.
    """
    if scan.noise is None:
        return scan
    # Whitening changes the unit. Only a fully sampled scan allows a new target in the new unit.
    if scan.target is not None and scan.mask is not None:
        raise InputError(
            "a scan that is whitened must be fully sampled or have no target, got noise, mask and "
            f"target in {path}; set data.prewhiten=false, or leave the target out"
        )
    matrix = whitening(scan.noise, scan.kspace.shape[1], path).astype(np.complex64)
    kspace = np.einsum("vc,sc...->sv...", matrix, scan.kspace)
    maps = scan.sensitivity_maps
    maps = None if maps is None else np.einsum("vc,sc...->sv...", matrix, maps)
    return replace(scan, kspace=kspace, sensitivity_maps=maps, target=None)
