"""Prewhitening: coils whose noise has unit variance and no correlation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.linalg import solve_triangular

from mrisem.data.readers.scan import Scan
from mrisem.errors import InputError


def whitening(noise: np.ndarray, n_coils: int, path: Path) -> np.ndarray:
    """``(coil, coil)``: ``L^-1`` of the noise covariance ``N N^H / n = L L^H`` (Cholesky).

    Source: Pruessmann et al., Magn Reson Med 46:638 (2001), appendix on noise decorrelation.

    Args:
        noise: ``(coil, n)`` complex samples without signal.
        n_coils: coils of the k-space.
        path: their file, for messages.

    Raises:
        InputError: when they are not finite, too few, or of other coils.
    """
    good = noise.ndim == 2 and noise.shape[0] == n_coils and np.isfinite(noise).all()
    if not good or noise.shape[1] <= n_coils:
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
        InputError: when the noise does not fit, or an undersampled scan has a target, which cannot
            be made anew in the new unit.
    """
    if scan.noise is None:
        return scan
    if scan.target is not None and scan.mask is not None:
        raise InputError(
            f"the target of an undersampled scan cannot be whitened with it, got noise, mask and "
            f"target in {path}; set data.prewhiten=false, or leave the target out"
        )
    matrix = whitening(scan.noise, scan.kspace.shape[1], path).astype(np.complex64)
    kspace = np.einsum("vc,sc...->sv...", matrix, scan.kspace)
    maps = scan.sensitivity_maps
    maps = None if maps is None else np.einsum("vc,sc...->sv...", matrix, maps)
    return replace(scan, kspace=kspace, sensitivity_maps=maps, target=None)
