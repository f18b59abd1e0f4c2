import pytest
import torch

from mrisem.errors import InputError
from mrisem.prior.image.preparation import Preparation

SIZE = 32
HALVES = ((0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def prepare():
    return Preparation(SIZE, 3, HALVES)


@pytest.mark.parametrize("image_size", [SIZE, 4, None])
def test_gradient_matches_finite_differences(image_size):
    prepare = Preparation(image_size, 3, HALVES).double()
    image = torch.rand(1, 6, 5, generator=torch.Generator().manual_seed(3)).double()
    assert torch.autograd.gradcheck(prepare, image.requires_grad_(), eps=1e-6)


@pytest.mark.parametrize(("height", "width"), [(20, 45), (33, 32), (31, 7), (32, 32)])
def test_image_is_cropped_and_padded_about_the_centre(prepare, height, width):
    image = torch.zeros(1, height, width)
    image[0, height // 2, width // 2] = 7.0
    pixels = prepare(image)
    assert pixels.shape == (1, 3, SIZE, SIZE)
    expected = torch.full((SIZE, SIZE), -1.0)
    expected[SIZE // 2, SIZE // 2] = 1.0
    for channel in pixels[0]:
        torch.testing.assert_close(channel, expected)


def test_size_of_the_image_is_kept_where_none_is_set():
    image = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(0))
    pixels = Preparation(None, 1, (0.0, 1.0))(image)
    expected = image / image.flatten(1).max(1).values[:, None, None]
    torch.testing.assert_close(pixels, expected[:, None])


def test_channels_have_their_own_mean_and_std():
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    pixels = Preparation(SIZE, 3, (mean, std))(torch.ones(1, 9, 9))
    mean, std = torch.tensor(mean), torch.tensor(std)
    torch.testing.assert_close(pixels[0, :, 0, 0], -mean / std)  # the frame is black
    torch.testing.assert_close(pixels[0, :, SIZE // 2, SIZE // 2], (1 - mean) / std)


def test_pad_value_fills_the_frame_only():
    pixels = Preparation(SIZE, 3, HALVES, pad_value=0.0)(torch.ones(1, 10, 10))
    assert pixels[0, 0, 0, 0] == 0.0
    assert pixels[0, 0, SIZE // 2, SIZE // 2] == 1.0


def test_zero_image_is_black(prepare):
    pixels = prepare(torch.zeros(1, SIZE, SIZE))
    assert torch.equal(pixels, torch.full_like(pixels, -1.0))


@pytest.mark.parametrize("shape", [(4, 4), (1, 2, 4, 4)])
def test_other_axes_are_refused(prepare, shape):
    with pytest.raises(InputError, match=r"\(n, y, x\)"):
        prepare(torch.ones(shape))


def test_complex_images_are_refused(prepare):
    with pytest.raises(InputError, match="abs"):
        prepare(torch.ones(1, 4, 4, dtype=torch.complex64))
