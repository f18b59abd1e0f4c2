"""Conventional regularisers as loss terms: ``(batch, y, x)`` complex64 -> ``(batch,)`` float32.

They stand beside the data term on the same networks as the semantic prior does, for comparison.
Both are means, so a weight means the same at every matrix size, as the data term has it; and both
are linear in the image's scale, which k-space scaling sets to a zero-filled maximum of 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated, Literal

import numpy as np
import pywt
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from mrisem.errors import InputError


@dataclass(frozen=True)
class Regulariser:
    """``weight * R(image)``, to be added to the data term.

    Args:
        name: which R.
        weight: factor of the term.
        wavelet: PyWavelets' name of an orthogonal wavelet (``l1_wavelet`` only).
        levels: number of decompositions (``l1_wavelet`` only).

    Raises:
        InputError: for an unknown or not orthogonal wavelet.
    """

    name: Literal["tv", "l1_wavelet"]
    weight: Annotated[float, Field(ge=0)]
    wavelet: str = "db4"
    levels: int = 3

    def __post_init__(self) -> None:
        """Fail before the first iteration."""
        if self.wavelet not in pywt.wavelist(kind="discrete"):
            rule = "wavelet must be a discrete one of PyWavelets"
        elif not pywt.Wavelet(self.wavelet).orthogonal:
            rule = "wavelet must be orthogonal"
        else:
            return
        raise InputError(f"{rule}, got {self.wavelet!r}; set wavelet=db4")

    def __call__(self, image: Tensor) -> Tensor:
        """``(batch, y, x)`` complex64 -> ``(batch,)`` float32: weighted value of each slice."""
        terms: dict[str, Callable[[Tensor], Tensor]] = {
            "tv": total_variation,
            "l1_wavelet": partial(l1_wavelet, wavelet=self.wavelet, levels=self.levels),
        }
        return self.weight * terms[self.name](image)


def total_variation(image: Tensor) -> Tensor:
    r"""Isotropic total variation, mean over pixels.

    ``TV(x) = 1 / (Y X) sum sqrt(|x[i+1,j] - x[i,j]|^2 + |x[i,j+1] - x[i,j]|^2)`` (Rudin, Osher,
    Fatemi 1992), complex moduli; a difference across the border is 0. No smoothing: where both
    differences vanish, the gradient is the subgradient 0.

    The paper's coordinate network takes ``3 TV`` (Feng et al., arXiv:2511.19641) beside a data term
    of unnormalised transforms: in our scale ``3 / sqrt(Y X)``, if its TV is a mean over pixels too.

    >>> total_variation(torch.tensor([[[0, 3.0], [4j, 4j]]]))  # (5 + 5 + 0 + 0) / 4
    tensor([2.5000])
    """
    along_y = torch.diff(image, dim=1, append=image[:, -1:])
    along_x = torch.diff(image, dim=2, append=image[:, :, -1:])
    parts = torch.view_as_real(torch.stack((along_y, along_x), dim=-1))
    # vector_norm, not a square root of a sum: its gradient at zero is 0, not NaN
    return torch.linalg.vector_norm(parts, dim=(-2, -1)).mean((1, 2))


def l1_wavelet(image: Tensor, wavelet: str = "db4", levels: int = 3) -> Tensor:
    """Mean modulus of the detail coefficients of an orthonormal wavelet transform.

    ``1 / n_details sum |(W x)_d|``; the approximation is not penalised. The transform is periodic.
    Images whose sizes are no multiples of ``2**levels`` are first continued to the next multiple by
    repeating their last row and column.

    Args:
        image: ``(batch, y, x)`` complex64.
        wavelet: PyWavelets' name of an orthogonal wavelet.
        levels: number of decompositions, at most what halves the shorter side to one pixel.

    Raises:
        InputError: for more levels than the image has.

    >>> l1_wavelet(torch.tensor([[[1, 1], [0, 0j]]]), "haar", levels=1)  # details 1, 0, 0
    tensor([0.3333])
    """
    y, x = image.shape[1:]
    if not 1 <= levels <= math.log2(min(y, x)):
        raise InputError(
            f"wavelet levels must be between 1 and log2 of the image's shorter side, got {levels} "
            f"for {(y, x)}; set levels=1 or use larger images"
        )
    low = functional.pad(image, (0, -x % 2**levels, 0, -y % 2**levels), mode="replicate")
    total, n_details = image.new_zeros(len(image)).real, 0
    for _ in range(levels):
        along_y, along_x = (_analysis(wavelet, n).to(low) for n in low.shape[1:])
        coefficients = along_y @ low @ along_x.mT
        y, x = (n // 2 for n in low.shape[1:])
        low = coefficients[:, :y, :x]
        details = coefficients[:, y:], coefficients[:, :y, x:]
        total = total + sum(part.abs().sum((1, 2)) for part in details)
        n_details += 3 * y * x
    return total / n_details


@lru_cache(maxsize=16)
def _analysis(wavelet: str, n: int) -> Tensor:
    """One level of the periodic transform of ``n`` samples, as a matrix: low-pass rows first."""
    rows = pywt.dwt(np.eye(n), wavelet, mode="periodization", axis=0)
    return torch.from_numpy(np.concatenate(rows))
