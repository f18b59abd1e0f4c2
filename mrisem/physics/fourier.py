"""Centred orthonormal 2-D Fourier transform, fastMRI's convention.

``ifftshift -> fft2(norm="ortho") -> fftshift``: the zero frequency lies at index ``n // 2``.
"""

from torch import Tensor
from torch.fft import fft, fft2, fftshift, ifft, ifft2, ifftshift

_YX = (-2, -1)


def fft2c(image: Tensor) -> Tensor:
    """Transform images ``(..., y, x)`` complex to k-space of the same shape and the same l2 norm.

    >>> import torch
    >>> kspace = fft2c(torch.ones(4, 4, dtype=torch.complex64))
    >>> round(kspace[2, 2].real.item(), 6), round(kspace.abs().sum().item(), 6)
    (4.0, 4.0)
    """
    return fftshift(fft2(ifftshift(image, dim=_YX), norm="ortho"), dim=_YX)


def ifft2c(kspace: Tensor) -> Tensor:
    """Transform k-space ``(..., y, x)`` complex to images: the inverse and adjoint of `fft2c`."""
    return fftshift(ifft2(ifftshift(kspace, dim=_YX), norm="ortho"), dim=_YX)


def center_crop(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the central ``size`` out of the last two axes; the pixel ``n // 2`` stays the centre.

    Args:
        image: ``(..., y, x)``.
        size: ``(Y, X)``, at most ``(y, x)``.

    Returns:
        ``(..., Y, X)`` view.

    Raises:
        ValueError: when ``size`` exceeds the image.

    >>> import torch
    >>> center_crop(torch.arange(5.0).reshape(1, 5), (1, 3))
    tensor([[1., 2., 3.]])
    """
    (height, width), (crop_y, crop_x) = image.shape[-2:], size
    if crop_y > height or crop_x > width:
        raise ValueError(f"crop must fit into the image {(height, width)}, got {size}")
    top, left = height // 2 - crop_y // 2, width // 2 - crop_x // 2
    return image[..., top : top + crop_y, left : left + crop_x]


def crop_readout(kspace: Tensor, n_rows: int) -> Tensor:
    """Return the k-space of the central ``n_rows`` image rows.

    The readout is fully sampled, so a transform along it separates the image rows. Rows that a
    target does not have can then be left out exactly, under any mask of whole columns. This halves
    a scan with twofold readout oversampling.

    Args:
        kspace: ``(..., y, x)`` complex; each column is fully sampled or not sampled at all.
        n_rows: number of rows, at most ``y``.

    Returns:
        ``(..., n_rows, x)`` complex.

    >>> import torch
    >>> image = torch.randn(6, 4, dtype=torch.complex128)
    >>> torch.allclose(ifft2c(crop_readout(fft2c(image), 2)), image[2:4])
    True
    """
    if n_rows == kspace.shape[-2]:
        return kspace
    rows = fftshift(ifft(ifftshift(kspace, dim=-2), dim=-2, norm="ortho"), dim=-2)
    rows = center_crop(rows, (n_rows, kspace.shape[-1]))
    return fftshift(fft(ifftshift(rows, dim=-2), dim=-2, norm="ortho"), dim=-2)
