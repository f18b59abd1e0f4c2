"""Centred orthonormal 2-D Fourier transform, fastMRI's convention.

``ifftshift -> fft2(norm="ortho") -> fftshift``: the zero frequency lies at index ``n // 2``.
"""

from torch import Tensor
from torch.fft import fft2, fftshift, ifft2, ifftshift

_YX = (-2, -1)


def fft2c(image: Tensor) -> Tensor:
    """Transform ``(..., y, x)`` complex image(s) to k-space of the same shape and l2 norm.

    >>> import torch
    >>> kspace = fft2c(torch.ones(4, 4, dtype=torch.complex64))
    >>> round(kspace[2, 2].real.item(), 6), round(kspace.abs().sum().item(), 6)
    (4.0, 4.0)
    """
    return fftshift(fft2(ifftshift(image, dim=_YX), norm="ortho"), dim=_YX)


def ifft2c(kspace: Tensor) -> Tensor:
    """Transform ``(..., y, x)`` complex k-space to image(s): inverse, and adjoint, of `fft2c`."""
    return fftshift(ifft2(ifftshift(kspace, dim=_YX), norm="ortho"), dim=_YX)


def center_crop(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the central ``size`` out of the last two axes (the pixel ``n // 2`` stays the centre).

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
