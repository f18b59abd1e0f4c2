"""Conventional regularisers as loss terms: ``(batch, y, x)`` complex64 -> ``(batch,)`` float32.

They can be added to the data term on the same networks as the semantic prior, for comparison.
Both are means, like the data term, so that one weight suits every matrix size. Both are linear in
the scale of the image, which k-space scaling sets to a zero-filled maximum of 1.
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
    """Term ``weight * R(image)``, which is added to the data term.

    Args:
        name: name of R: ``tv`` or ``l1_wavelet``.
        weight: factor of R.
        wavelet: name in PyWavelets of an orthogonal wavelet (``l1_wavelet`` only).
        levels: number of decompositions (``l1_wavelet`` only).

    Raises:
        InputError: for a wavelet that is unknown or not orthogonal.
    """

    name: Literal["tv", "l1_wavelet"]
    weight: Annotated[float, Field(ge=0)]
    wavelet: str = "db4"
    levels: int = 3

    def __post_init__(self) -> None:
        """Check the wavelet, so that a run fails before its first iteration."""
        if self.wavelet not in pywt.wavelist(kind="discrete"):
            rule = "wavelet must be a discrete wavelet of PyWavelets"
        elif not pywt.Wavelet(self.wavelet).orthogonal:
            rule = "wavelet must be orthogonal"
        else:
            return
        raise InputError(f"{rule}, got {self.wavelet!r}; set wavelet=db4")

    def __call__(self, image: Tensor) -> Tensor:
        """Compute the term of each slice: ``(batch, y, x)`` complex64 -> ``(batch,)`` float32."""
        terms: dict[str, Callable[[Tensor], Tensor]] = {
            "tv": total_variation,
            "l1_wavelet": partial(l1_wavelet, wavelet=self.wavelet, levels=self.levels),
        }
        return self.weight * terms[self.name](image)


def total_variation(image: Tensor) -> Tensor:
    r"""Isotropic total variation, mean over pixels.

    ``TV(x) = 1 / (Y X) sum sqrt(|x[i+1,j] - x[i,j]|^2 + |x[i,j+1] - x[i,j]|^2)`` (Rudin, Osher,
    Fatemi 1992) with complex moduli; differences across the border are 0. Nothing is smoothed:
    where both differences vanish, the gradient is the subgradient 0.

    The INR of the paper (Feng et al., arXiv:2511.19641) takes ``3 TV`` beside a data term with an
    unnormalised Fourier transform. In our scale this is ``3 / sqrt(Y X)``, if the paper's TV is a
    mean over pixels, too.

    >>> total_variation(torch.tensor([[[0, 3.0], [4j, 4j]]]))  # (5 + 5 + 0 + 0) / 4
    tensor([2.5000])
    """
    along_y = torch.diff(image, dim=1, append=image[:, -1:])
    along_x = torch.diff(image, dim=2, append=image[:, :, -1:])
    parts = torch.view_as_real(torch.stack((along_y, along_x), dim=-1))
    # the gradient of vector_norm at zero is 0; that of a square root of a sum would be NaN
    return torch.linalg.vector_norm(parts, dim=(-2, -1)).mean((1, 2))


def l1_wavelet(image: Tensor, wavelet: str = "db4", levels: int = 3) -> Tensor:
    """Mean modulus of the detail coefficients of an orthonormal wavelet transform.

    ``1 / n_details sum |(W x)_d|``; the approximation coefficients are not penalised. The transform
    is periodic. An image whose size is no multiple of ``2**levels`` is first extended to the next
    multiple by repeating its last row and column.

    Args:
        image: ``(batch, y, x)`` complex64.
        wavelet: name in PyWavelets of an orthogonal wavelet.
        levels: number of decompositions, at most log2 of the shorter side.

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
    # W acts on rows and columns of the approximation, level by level (Mallat 1989)
    low = functional.pad(image, (0, -x % 2**levels, 0, -y % 2**levels), mode="replicate")
    total, n_details = image.new_zeros(len(image)).real, 0
    for _ in range(levels):
        along_y, along_x = (_analysis(wavelet, n).to(low) for n in low.shape[1:])
        coefficients = along_y @ low @ along_x.mT
        y, x = (n // 2 for n in low.shape[1:])
        low = coefficients[:, :y, :x]  # the approximation is decomposed further
        details = coefficients[:, y:], coefficients[:, :y, x:]
        total = total + sum(part.abs().sum((1, 2)) for part in details)
        n_details += 3 * y * x
    return total / n_details


@lru_cache(maxsize=16)
def _analysis(wavelet: str, n: int) -> Tensor:
    """Make the ``(n, n)`` matrix of one level of the periodic transform, low-pass rows first."""
    rows = pywt.dwt(np.eye(n), wavelet, mode="periodization", axis=0)
    return torch.from_numpy(np.concatenate(rows))
