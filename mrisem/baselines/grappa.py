"""GRAPPA by pygrappa (CPU): missing samples are estimated from neighbours in all coils."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mrisem.baselines.slices import SliceBySlice
from mrisem.errors import InputError
from mrisem.physics.coils import combine
from mrisem.physics.fourier import ifft2c
from mrisem.physics.masks import calibration_lines


class Grappa(SliceBySlice):
    """Fill the k-space of each coil, then combine the coils with the batch's sensitivity maps.

    A kernel is calibrated on the central lines for every pattern of sampled neighbours that occurs,
    so masks may be irregular. A sample without any sampled neighbour within the kernel stays zero.
    With wide gaps (Gaussian masks at high acceleration) this holds for the outer lines. Measured
    samples are kept. Source: Griswold et al., Magn Reson Med 47:1202 (2002).

    Args:
        weight: Tikhonov weight of the calibration, relative to the norm of its matrix; the default
            is chosen by `make tune-baselines`.
        kernel_size: ``(y, x)``, odd, in samples.
    """

    def __init__(self, weight: float = 0.1, kernel_size: tuple[int, int] = (5, 5)) -> None:
        if any(width % 2 == 0 or width < 1 for width in kernel_size):
            raise InputError(
                f"kernel_size must be two odd numbers, got {tuple(kernel_size)}; set [5, 5]"
            )
        self.weight = weight
        self.kernel_size = tuple(kernel_size)

    def solve(self, kspace: NDArray, maps: NDArray, mask: NDArray) -> NDArray:
        """See `SliceBySlice`.

        Raises:
            InputError: without pygrappa, for a single coil, or with too few calibration lines.
        """
        try:
            from pygrappa import mdgrappa
        except ImportError as error:
            raise InputError(
                f"model=grappa needs the package pygrappa ({error}); pip install 'mrisem[grappa]'"
            ) from error
        if len(kspace) < 2:
            raise InputError(
                f"grappa needs at least 2 coils, got {len(kspace)}; set model=l1_wavelet for "
                "single-coil data"
            )
        calibration = self._calibration(kspace, mask)
        # a pattern without sampled neighbours gives 0 / 0, which no sample uses
        with np.errstate(invalid="ignore"):
            filled = mdgrappa(kspace, calibration, self.kernel_size, coil_axis=0, lamda=self.weight)
        filled = np.where(mask, kspace, filled).astype(np.complex64)
        image = combine(ifft2c(torch.from_numpy(filled)), torch.from_numpy(maps))
        return image.numpy()

    def _calibration(self, kspace: NDArray, mask: NDArray) -> NDArray:
        """Cut out the fully sampled block of central columns, ``(coil, y, lines)``."""
        if not (mask == mask.any(axis=0)).all():
            raise InputError(
                "grappa must have a mask of whole phase-encode columns, got single points; set "
                "model=cg_sense or model=l1_wavelet"
            )
        lines = calibration_lines(torch.from_numpy(mask.all(axis=0)))
        if lines < self.kernel_size[1]:
            raise InputError(
                f"grappa needs at least {self.kernel_size[1]} calibration lines, the width of its "
                f"kernel, got {lines}; set mask.calibration_lines or a smaller kernel_size"
            )
        start = kspace.shape[-1] // 2 - lines // 2
        return np.ascontiguousarray(kspace[..., start : start + lines])
