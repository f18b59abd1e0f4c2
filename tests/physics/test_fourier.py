import numpy as np
import pytest
import torch

from mrisem.physics.fourier import center_crop, fft2c, ifft2c


@pytest.mark.parametrize("shape", [(8, 6), (7, 5), (6, 9)])
def test_fft2c_is_unitary_and_centred(shape):
    image = torch.randn(2, *shape, dtype=torch.complex128)
    kspace = fft2c(image)
    torch.testing.assert_close(kspace.norm(), image.norm())
    torch.testing.assert_close(ifft2c(kspace), image)
    torch.testing.assert_close(
        kspace[:, shape[0] // 2, shape[1] // 2], image.sum((1, 2)) / np.sqrt(np.prod(shape))
    )


def test_fft2c_equals_fastmri():
    from fastmri import fft2c as reference

    image = torch.randn(3, 6, 7, dtype=torch.complex64)
    expected = torch.view_as_complex(reference(torch.view_as_real(image)))
    torch.testing.assert_close(fft2c(image), expected)


def test_center_crop_keeps_the_centre_for_odd_sizes():
    image = torch.zeros(9, 8)
    image[4, 4] = 1
    for size in [(5, 4), (4, 5), (3, 3)]:
        assert center_crop(image, size)[size[0] // 2, size[1] // 2] == 1


def test_center_crop_of_the_whole_size_changes_nothing_and_refuses_to_grow():
    image = torch.rand(4, 3)
    assert torch.equal(center_crop(image, (4, 3)), image)
    for size in [(5, 3), (4, 4)]:
        with pytest.raises(ValueError, match="crop must fit"):
            center_crop(image, size)
