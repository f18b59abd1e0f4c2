import math

import pytest
import torch

from mrisem.prior.contrastive import info_nce, token_similarity


def naive_loss(z, bank, n_positives, temperature):
    """The formula, entry by entry and token by token, in float64."""
    losses = []
    for image in z:
        weights = []
        for entry in bank:
            s = sum(float(zt @ bt) for zt, bt in zip(image, entry, strict=True)) / len(image)
            weights.append(math.exp(s / temperature))
        losses.append(-math.log(sum(weights[:n_positives]) / sum(weights)))
    return losses


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_info_nce_and_its_gradient_equal_a_naive_loop(temperature):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    bank = torch.randn(7, 5, 4, generator=generator, dtype=torch.float64)
    z, bank = (torch.nn.functional.normalize(t, dim=-1) for t in (z, bank))

    def fast(z):
        s = token_similarity(z, bank.float().flatten(1))
        return info_nce(s[:, :3], s[:, 3:], (temperature, temperature))

    leaf = z.float().requires_grad_()
    loss = fast(leaf)
    loss.sum().backward()
    expected = torch.tensor(naive_loss(z, bank, 3, temperature), dtype=torch.float64)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    step = 1e-6
    numeric = torch.zeros_like(z)
    for index in range(z[0].numel()):
        for image in range(2):
            shift = torch.zeros_like(z)
            shift[image].view(-1)[index] = step
            up, down = (naive_loss(z + s, bank, 3, temperature)[image] for s in (shift, -shift))
            numeric[image].view(-1)[index] = (up - down) / (2 * step)
    error = (leaf.grad.double() - numeric).abs().max() / numeric.abs().max()
    assert error < 1e-5


def test_info_nce_does_not_overflow_at_low_temperature():
    similarity = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    loss = info_nce(similarity[:, :1], similarity[:, 1:], (1e-3, 1e-3))
    torch.testing.assert_close(loss, torch.tensor([0.0, 2000.0]))


def make_unit(*shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator) + 0.5, dim=-1)


def test_token_similarity_is_float32_under_autocast():
    z, bank = make_unit(2, 50, 16), make_unit(20, 50, 16).flatten(1)
    with torch.autocast("cpu", torch.bfloat16):
        got = token_similarity(z, bank)
    assert torch.equal(got, token_similarity(z, bank))
    assert got.dtype == torch.float32


def test_token_similarity_of_a_bfloat16_bank_keeps_float32_sums():
    z, bank = make_unit(2, 576, 16), make_unit(20, 576, 16, seed=4).flatten(1)
    rounded = bank.bfloat16()
    exact = z.bfloat16().double().flatten(1) @ rounded.double().T / 576
    error = (token_similarity(z, rounded) - exact).abs().max()
    plain = ((z.flatten(1).bfloat16() @ rounded.T).float() / 576 - exact).abs().max()
    assert error < 2e-4
    assert error < plain / 3


def test_token_similarity_gradient_through_a_bfloat16_bank():
    z, bank = make_unit(2, 64, 16), make_unit(20, 64, 16).flatten(1)
    leaf = z.clone().requires_grad_()
    token_similarity(leaf, bank.bfloat16())[:, 3].sum().backward()
    expected = bank[3].reshape(64, 16) / 64
    torch.testing.assert_close(leaf.grad[0], expected, rtol=2e-2, atol=1e-5)
