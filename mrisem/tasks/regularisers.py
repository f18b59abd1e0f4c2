"""Conventional regularisers as loss terms, each ``(batch,)``, one value a slice.

They stand beside the data term on the same networks as the semantic prior does, for comparison.
Both are means, so a weight means the same at every matrix size, as `tasks.losses` has it; and both
are linear in the image's scale, which k-space scaling sets to a zero-filled maximum of 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from mrisem.errors import InputError

NAMES = ("tv", "l1_wavelet")


@dataclass(frozen=True)
class Regulariser:
    """``weight * R(image)``, to be added to the data term.

    Args:
        name: ``tv`` or ``l1_wavelet``.
        weight: factor of the term, at least 0.
        wavelet: PyWavelets' name of an orthogonal wavelet (``l1_wavelet`` only).
        levels: number of decompositions (``l1_wavelet`` only).
    """

    name: str
    weight: float
    wavelet: str = "db4"
    levels: int = 3

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise InputError(f"a regulariser is one of {', '.join(NAMES)}, got {self.name!r}")
        if not 0 <= self.weight < math.inf:
            raise InputError(f"a regulariser's weight must be at least 0, got {self.weight}")
        if self.name == "l1_wavelet":  # fail before the first iteration
            _analysis_filters(self.wavelet)

    def __call__(self, image: Tensor) -> Tensor:
        """Weighted value of each slice.

        Args:
            image: ``(batch, y, x)`` complex64.

        Returns:
            ``(batch,)`` float32.
        """
        if self.name == "tv":
            return self.weight * total_variation(image)
        return self.weight * l1_wavelet(image, self.wavelet, self.levels)


def total_variation(image: Tensor) -> Tensor:
    r"""Isotropic total variation, mean over pixels.

    ``TV(x) = 1 / (Y X) sum sqrt(|x[i+1,j] - x[i,j]|^2 + |x[i,j+1] - x[i,j]|^2)`` (Rudin, Osher,
    Fatemi 1992), complex moduli; a difference across the border is 0. No smoothing: where both
    differences vanish, the gradient is the subgradient 0.

    The paper's coordinate network takes ``3 TV`` (method: Feng et al., arXiv:2511.19641, its INR
    backbone) beside a data term of unnormalised transforms: in our scale ``3 / sqrt(Y X)``, 0.006
    at 640 x 368, if its TV is a mean over pixels too.

    Args:
        image: ``(batch, y, x)`` complex64.

    Returns:
        ``(batch,)`` float32.

    >>> total_variation(torch.tensor([[[0, 3.0], [4j, 4j]]]))  # (5 + 5 + 0 + 0) / 4
    tensor([2.5000])
    """
    _check(image)
    along_y = torch.diff(image, dim=1, append=image[:, -1:])
    along_x = torch.diff(image, dim=2, append=image[:, :, -1:])
    parts = torch.view_as_real(torch.stack((along_y, along_x), dim=-1))
    # vector_norm, not a square root of a sum: its gradient at zero is 0, not NaN
    return torch.linalg.vector_norm(parts, dim=(-2, -1)).mean((1, 2))


def l1_wavelet(image: Tensor, wavelet: str = "db4", levels: int = 3) -> Tensor:
    """Mean modulus of the detail coefficients of an orthonormal wavelet transform.

    ``1 / n_details sum |(W x)_d|``; the approximation is not penalised.

    Args:
        image: ``(batch, y, x)`` complex64.
        wavelet: PyWavelets' name of an orthogonal wavelet.
        levels: number of decompositions.

    Returns:
        ``(batch,)`` float32.

    >>> l1_wavelet(torch.tensor([[[1, 1], [0, 0j]]]), "haar", levels=1)  # details 1, 0, 0
    tensor([0.3333])
    """
    _, details = wavelet_coefficients(image, wavelet, levels)
    moduli = [detail.abs().sum((0, 2, 3)) for detail in details]
    return torch.stack(moduli).sum(0) / sum(detail[:, 0].numel() for detail in details)


def wavelet_coefficients(
    image: Tensor, wavelet: str = "db4", levels: int = 3
) -> tuple[Tensor, list[Tensor]]:
    """Periodised orthonormal 2-D wavelet transform, as PyWavelets' ``periodization`` mode has it.

    Images whose sizes are no multiples of ``2**levels`` are first continued to the next multiple by
    repeating their last row and column.

    Args:
        image: ``(batch, y, x)`` complex64.
        wavelet: PyWavelets' name of an orthogonal wavelet.
        levels: number of decompositions, at most what halves the shorter side to one pixel.

    Returns:
        The approximation ``(batch, y / 2**levels, x / 2**levels)`` and the details, coarsest first,
        each ``(3, batch, ., .)``: high-pass along y, along x, along both.

    Raises:
        InputError: for an unknown or not orthogonal wavelet, or more levels than the image has.
    """
    _check(image)
    if not 1 <= levels <= math.log2(min(image.shape[1:])):
        raise InputError(
            f"wavelet levels must be between 1 and log2 of the image's shorter side, got {levels} "
            f"for {tuple(image.shape[1:])}; set levels=1 or use larger images"
        )
    filters = torch.tensor(_analysis_filters(wavelet), dtype=image.real.dtype, device=image.device)
    low = torch.view_as_real(_pad_to_multiple(image, 2**levels)).movedim(-1, 0)
    details: list[Tensor] = []
    for _ in range(levels):
        low_x, high_x = _split(low, filters)
        low, high_y = (part.mT for part in _split(low_x.mT, filters))
        vertical, diagonal = (part.mT for part in _split(high_x.mT, filters))
        details.insert(0, _complex(torch.stack((high_y, vertical, diagonal), dim=1)))
    return _complex(low), details


def _split(signal: Tensor, filters: Tensor) -> tuple[Tensor, Tensor]:
    """Low- and high-pass halves ``(..., n / 2)`` of ``(..., n)``, filtered in a ring."""
    n, taps = signal.shape[-1], filters.shape[-1]
    # window k covers samples 2 k + 1 - taps / 2 and the following: PyWavelets' alignment
    ring = torch.arange(1 - taps // 2, n + taps // 2 - 1, device=signal.device) % n
    low, high = (signal[..., ring].unfold(-1, taps, 2) @ filters.mT).unbind(-1)
    return low, high


@lru_cache
def _analysis_filters(wavelet: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Low- and high-pass taps in the order in which they meet the samples."""
    import pywt

    try:
        found = pywt.Wavelet(wavelet)
    except ValueError as error:
        raise InputError(
            f"wavelet must be a discrete one of PyWavelets, got {wavelet!r}; set wavelet=db4"
        ) from error
    if not found.orthogonal:
        raise InputError(f"wavelet must be orthogonal, got {wavelet!r}; set wavelet=db4")
    return tuple(reversed(found.dec_lo)), tuple(reversed(found.dec_hi))


def _pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until both sizes are multiples."""
    for dim in (1, 2):
        n = image.shape[dim]
        if n % multiple:
            index = torch.arange(n + -n % multiple, device=image.device).clamp(max=n - 1)
            image = image.index_select(dim, index)
    return image


def _complex(parts: Tensor) -> Tensor:
    """``(2, ...)`` real and imaginary part -> ``(...)`` complex."""
    return torch.complex(parts[0], parts[1])


def _check(image: Tensor) -> None:
    """One shape and kind of image."""
    if image.ndim != 3 or not image.is_complex():
        raise InputError(
            f"image must be (batch, y, x) complex, got {tuple(image.shape)} {image.dtype}; "
            "regularisers take the complex image, not its magnitude or channels"
        )
