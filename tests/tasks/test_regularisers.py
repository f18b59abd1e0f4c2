import numpy as np
import pytest
import pywt
import torch

from mrisem.errors import InputError
from mrisem.tasks.regularisers import Regulariser, l1_wavelet, total_variation

TERMS = pytest.mark.parametrize("term", [total_variation, l1_wavelet], ids=["tv", "l1_wavelet"])


def random_image(*shape, dtype=torch.complex128, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def naive_total_variation(image):
    total, (n_y, n_x) = 0.0, image.shape
    for i in range(n_y):
        for j in range(n_x):
            down = image[i + 1, j] - image[i, j] if i + 1 < n_y else 0
            right = image[i, j + 1] - image[i, j] if j + 1 < n_x else 0
            total += np.sqrt(abs(down) ** 2 + abs(right) ** 2)
    return total / (n_y * n_x)


def pywt_l1(image, wavelet, levels):
    """Sizes to multiples of 2**levels by repeated edges, then PyWavelets."""
    image = np.pad(image, [(0, -n % 2**levels) for n in image.shape], mode="edge")
    details = []
    for _ in range(levels):  # wavedec2 warns where filters wrap around
        image, parts = pywt.dwt2(image, wavelet, mode="periodization")
        details += [np.abs(part).ravel() for part in parts]
    return np.mean(np.concatenate(details))


@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (1, 5), (1, 1)])
def test_total_variation_equals_a_naive_loop(shape):
    images = random_image(2, *shape)
    expected = [naive_total_variation(image) for image in images.numpy()]
    np.testing.assert_allclose(total_variation(images), expected, rtol=1e-12)


def test_total_variation_of_a_step_is_the_length_of_its_edge():
    image = torch.zeros(1, 10, 20, dtype=torch.complex64)
    image[:, :, 7:] = 2j
    torch.testing.assert_close(total_variation(image), torch.tensor([2 * 10 / 200]))


def test_total_variation_gradient_is_zero_where_the_image_is_flat():
    image = torch.ones(1, 6, 6, dtype=torch.complex64).requires_grad_()
    total_variation(image).sum().backward()
    assert torch.equal(image.grad, torch.zeros_like(image))
    l1_wavelet(torch.zeros_like(image) * image, levels=1).sum().backward()
    assert image.grad.isfinite().all()


@pytest.mark.parametrize("wavelet", ["haar", "db3", "db4", "sym5", "coif2"])
@pytest.mark.parametrize("shape", [(16, 24), (8, 8), (17, 22), (9, 31)])
@pytest.mark.parametrize("levels", [1, 3])
def test_l1_wavelet_equals_pywavelets(wavelet, shape, levels):
    images = random_image(2, *shape)
    expected = [pywt_l1(image, wavelet, levels) for image in images.numpy()]
    np.testing.assert_allclose(l1_wavelet(images, wavelet, levels), expected, rtol=1e-9)


@TERMS
@pytest.mark.parametrize("shape", [(8, 8), (9, 11)])
def test_regulariser_gradient_equals_finite_differences(term, shape):
    image = random_image(2, *shape).requires_grad_()
    assert torch.autograd.gradcheck(term, (image,))


@TERMS
@pytest.mark.parametrize("shape", [(16, 16), (13, 9)])
def test_regulariser_of_a_constant_is_zero(term, shape):
    image = torch.full((1, *shape), 0.3 - 0.4j, dtype=torch.complex64)
    torch.testing.assert_close(term(image), torch.zeros(1), atol=1e-7, rtol=0)


@TERMS
def test_regulariser_scales_with_the_modulus(term):
    image = random_image(2, 16, 12)
    torch.testing.assert_close(term((-3 + 4j) * image), 5 * term(image))


@TERMS
def test_regulariser_batch_equals_one_by_one(term):
    image = random_image(3, 19, 16, dtype=torch.complex64)
    value = term(image)
    assert value.dtype == torch.float32
    assert value.shape == (3,)
    torch.testing.assert_close(value, torch.cat([term(one[None]) for one in image]))


def test_regulariser_weighs_its_term():
    image = random_image(2, 16, 16)
    expected = 0.25 * total_variation(image)
    torch.testing.assert_close(Regulariser("tv", 0.25)(image), expected)
    expected = 2 * l1_wavelet(image, "sym4", 2)
    actual = Regulariser("l1_wavelet", 2.0, wavelet="sym4", levels=2)(image)
    torch.testing.assert_close(actual, expected)


def test_regulariser_descent_denoises():
    clean = torch.zeros(1, 32, 32, dtype=torch.complex64)
    clean[:, 8:24, 8:24] = 1
    noisy = clean + 0.1 * random_image(1, 32, 32, dtype=torch.complex64)
    for term in (Regulariser("tv", 0.1), Regulariser("l1_wavelet", 0.1)):
        image = noisy.clone().requires_grad_()
        optimiser = torch.optim.Adam([image], lr=0.01)
        for _ in range(60):
            optimiser.zero_grad()
            loss = 0.5 * (image - noisy).abs().square().mean() + term(image).sum()
            loss.backward()
            optimiser.step()
        assert (image.detach() - clean).norm() < 0.8 * (noisy - clean).norm(), term.name


@pytest.mark.parametrize(
    ("wavelet", "rule"),
    [
        ("db0", "discrete wavelet of PyWavelets, got 'db0'"),
        ("morl", "discrete wavelet of PyWavelets"),
        ("bior2.2", "must be orthogonal"),
    ],
)
def test_regulariser_bad_wavelets_are_errors(wavelet, rule):
    with pytest.raises(InputError, match=rule) as error:
        Regulariser("l1_wavelet", 1.0, wavelet)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("levels", [0, 5])
def test_l1_wavelet_impossible_levels_are_errors(levels):
    with pytest.raises(InputError, match="levels must be between 1 and"):
        l1_wavelet(random_image(1, 16, 40), levels=levels)
