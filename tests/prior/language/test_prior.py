import pytest
import torch

from mrisem.errors import InputError
from mrisem.prior.image.prior import Jitter
from mrisem.prior.language.bank import LanguageBank, Perturbation, build_language_bank
from mrisem.prior.language.loading import load_language_model
from mrisem.prior.language.prior import LanguagePrior
from mrisem.prior.language.prompts import Prompt

PROMPT = Prompt("quality", "Is this image good or bad?", "good", "bad")
SWAPPED = Prompt("quality", "Is this image good or bad?", "good", "bad", target="negative")


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_gradient_reaches_the_image_and_no_weight(encoder, bank):
    images = draw(2, 40, 24).requires_grad_()
    LanguagePrior(encoder, PROMPT, bank).losses(images)["semantic"].sum().backward()
    assert (images.grad.abs().amax((1, 2)) > 0).all()
    assert all(weight.grad is None for weight in encoder.parameters())


def plain_loss(response, positives, negatives, center):
    mean = sum(positives + negatives) / len(positives + negatives) if center else 0 * response

    def cosine(entry):
        return torch.cosine_similarity(response - mean, entry - mean, dim=0)

    wanted = sum((cosine(entry) / 0.1).exp() for entry in positives)
    unwanted = sum((cosine(entry) / 0.7).exp() for entry in negatives)
    return -(wanted / (wanted + unwanted)).log()


def naive_loss(encoder, bank, image, center):
    """The formula of Feng et al., arXiv:2511.19641, entry by entry, in float64."""
    response = encoder(image[None], PROMPT)[0].double()
    sides = ([*side.flatten(0, 1).double()] for side in (bank.positives, bank.negatives))
    return plain_loss(response, *sides, center)


@pytest.mark.parametrize("center", [True, False])
def test_loss_and_gradient_equal_a_naive_loop(encoder, bank, center):
    prior = LanguagePrior(encoder, PROMPT, bank, center=center)
    images, same = (draw(3, 40, 24).requires_grad_() for _ in range(2))
    losses = prior.losses(images)["semantic"]
    expected = torch.stack([naive_loss(encoder, bank, image, center) for image in same])
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-7)
    weights = torch.tensor([1.0, -2.0, 0.5])
    (losses * weights).sum().backward()
    (expected * weights).sum().backward()
    error = (images.grad - same.grad).norm() / same.grad.norm()
    assert error < 2e-4  # the naive response itself is float32


def test_loss_values_only_without_a_gradient(encoder, bank):
    prior = LanguagePrior(encoder, PROMPT, bank)
    with torch.no_grad():
        values = prior.losses(draw(2, 40, 24))
    assert {v.shape for v in values.values()} == {(2,)}
    assert not values["semantic"].requires_grad


def test_swapped_target_is_swapped_banks(encoder, bank):
    images = draw(2, 40, 24)
    exchanged = LanguageBank(bank.negatives, bank.positives)
    swapped = LanguagePrior(encoder, SWAPPED, bank).losses(images)
    expected = LanguagePrior(encoder, PROMPT, exchanged).losses(images)
    for name, value in swapped.items():
        torch.testing.assert_close(value, expected[name])
    straight = LanguagePrior(encoder, PROMPT, bank).losses(images)["semantic"]
    assert not torch.allclose(straight, swapped["semantic"])


def loss_and_gradient(prior, images):
    leaf = images.clone().requires_grad_()
    loss = prior.losses(leaf)["semantic"]
    return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]


def test_float32_is_kept_under_autocast(encoder, bank):
    prior, images = LanguagePrior(encoder, PROMPT, bank), draw(2, 40, 24)
    expected = loss_and_gradient(prior, images)
    with torch.autocast("cpu", torch.bfloat16):
        got = loss_and_gradient(prior, images)
        response = encoder(images, PROMPT)
    assert response.dtype == torch.float32
    for value, reference in zip(got, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=0, atol=0)


@pytest.mark.parametrize("api", ["set_float32_matmul_precision", "backends"])
def test_float32_is_kept_under_reduced_matrix_products(encoder, bank, api):
    prior, images = LanguagePrior(encoder, PROMPT, bank), draw(2, 40, 24)
    expected = loss_and_gradient(prior, images)
    inside = []
    handle = encoder.language.register_forward_hook(
        lambda *_: inside.append(torch.backends.mkldnn.matmul.fp32_precision)
    )
    before = torch.get_float32_matmul_precision()
    try:
        if api == "backends":
            torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        else:
            torch.set_float32_matmul_precision("medium")
        got = loss_and_gradient(prior, images)
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        handle.remove()
        torch.set_float32_matmul_precision(before)
    assert set(inside) == {"ieee"}
    for value, reference in zip(got, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=0, atol=0)


def test_bfloat16_weights_compute_in_float32(folder, model, bank):
    stored = load_language_model(str(folder), dtype="bfloat16")
    assert stored.language.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    rounded = load_language_model(str(folder))
    with torch.no_grad():
        for weight in rounded.language.parameters():
            if weight.ndim > 1:
                weight.copy_(weight.bfloat16().float())
    images = draw(2, 40, 24)
    values = [loss_and_gradient(LanguagePrior(e, PROMPT, bank), images) for e in (stored, rounded)]
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-6)
    assert stored.fingerprint != rounded.fingerprint


def test_gradient_checkpointing_changes_nothing_but_memory(folder, encoder, bank):
    frugal = load_language_model(str(folder), gradient_checkpointing=True)
    calls = []
    frugal.language.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    images = draw(1, 40, 24)
    values = [loss_and_gradient(LanguagePrior(e, PROMPT, bank), images) for e in (frugal, encoder)]
    torch.testing.assert_close(*values)
    assert len(calls) == 2  # once forward, once more in backward


def test_jitter_averages_responses(encoder, bank):
    still = Jitter(copies=3, max_shift=0, noise=0.0)
    images = draw(2, 40, 24)
    plain = LanguagePrior(encoder, PROMPT, bank).losses(images)["semantic"]
    varied = LanguagePrior(encoder, PROMPT, bank, jitter=still).losses(images)["semantic"]
    torch.testing.assert_close(varied, plain, rtol=1e-4, atol=1e-5)


class Talker:
    """Answers by the image's mean."""

    def __call__(self, magnitude, prompt):
        return magnitude.flatten(1)

    def answer(self, magnitude, prompt):
        return [
            f" {prompt.positive}." if m > 0.5 else prompt.negative for m in magnitude.mean((1, 2))
        ]


def test_diagnosis_says_whether_the_answer_is_the_wanted_word():
    images = torch.stack([torch.full((2, 2), 0.9), torch.full((2, 2), 0.1)])
    bank = LanguageBank(*draw(2, 3, 2, 4))
    for prompt, expected in ((PROMPT, [1.0, 0.0]), (SWAPPED, [0.0, 1.0])):
        prior = LanguagePrior(Talker(), prompt, bank, answer_every=5)
        assert prior.diagnose(images, 10)["says_wanted"].tolist() == expected
        assert prior.diagnose(images, 11) == {}


def test_signature_is_on_the_banks_own_scale(encoder, bank):
    prior, images = LanguagePrior(encoder, PROMPT, bank), draw(2, 40, 24)
    ((own,), ((wanted, _),)) = prior.signature(images).values(), prior.bank_signature().values()
    expected = prior.losses(images)["positives_response"]
    torch.testing.assert_close((own @ wanted.T).mean(1), expected, rtol=1e-4, atol=1e-6)


def test_bank_without_images_is_refused(encoder):
    with pytest.raises(InputError, match="at least one auxiliary slice") as caught:
        build_language_bank(encoder, [], PROMPT, Perturbation(n=1), {})
    assert "\n" not in str(caught.value)
