import pytest
import torch

from mrisem.errors import InputError
from mrisem.prior.language.bank import Perturbation, build_language_bank
from mrisem.prior.language.builder import LanguagePriorBuilder
from mrisem.prior.language.prompts import Prompt

WIDTH = 24
PROMPT = Prompt("quality", "Is this image good or bad?", "good", "bad")
SWAPPED = Prompt("quality", "Is this image good or bad?", "good", "bad", target="negative")


def test_bank_sees_each_image_once_and_perturbs_it_n_times(encoder, slices, bank):
    calls = {"tower": 0, "language": 0}

    def count(name):
        return lambda *_: calls.update({name: calls[name] + 1})

    handles = [getattr(encoder, name).register_forward_hook(count(name)) for name in calls]
    noise = Perturbation(n=5, sigma=0.03, batch_size=5)
    again = build_language_bank(encoder, slices, PROMPT, noise, {})
    for handle in handles:
        handle.remove()
    assert calls == {"tower": 2 * len(slices), "language": 2 * len(slices)}
    assert again.positives.shape == (3, 5, WIDTH)
    torch.testing.assert_close(again.positives, bank.positives, rtol=1e-4, atol=1e-5)
    assert again.positives.var(1).mean() > 0


def test_bank_without_noise_holds_the_plain_responses(encoder, slices):
    still = Perturbation(n=2, sigma=0.0)
    bank = build_language_bank(encoder, slices, PROMPT, still, {})
    plain = torch.cat([encoder(pair[1][None], PROMPT) for pair in slices])
    torch.testing.assert_close(bank.negatives[:, 1], plain, rtol=1e-4, atol=1e-5)


def find(folder, encoder, slices, prompt=PROMPT, n=2):
    builder = LanguagePriorBuilder("janus", prompt, folder, n_perturbations=n)
    return builder.find_bank(encoder, slices, torch.device("cpu"))


def test_bank_file_is_found_again_for_both_targets(encoder, slices, tmp_path):
    bank, path = find(tmp_path, encoder, slices)
    found, same = find(tmp_path, encoder, slices, SWAPPED)
    assert path == same
    torch.testing.assert_close(found.positives, bank.positives, rtol=0, atol=0)
    assert found.description == bank.description
    assert find(tmp_path, encoder, slices, n=3)[1] != path


def test_bank_file_damage_is_detected_and_repaired(encoder, slices, tmp_path):
    bank, path = find(tmp_path, encoder, slices)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        again, _ = find(tmp_path, encoder, slices)
    torch.testing.assert_close(again.negatives, bank.negatives)


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_interrupted_bank_continues_and_equals_an_uninterrupted_one(
    encoder, slices, tmp_path, monkeypatch, stop
):
    from mrisem.prior.cache import Unfinished
    from mrisem.prior.language import bank as module

    class Stopped(KeyboardInterrupt):
        pass

    calls, ask = [], module._responses

    def counted(*arguments):
        calls.append(1)
        if len(calls) == stop:
            raise Stopped
        return ask(*arguments)

    noise = Perturbation(n=3, sigma=0.03, batch_size=2)
    expected = build_language_bank(encoder, slices, PROMPT, noise, {})
    unfinished = Unfinished(tmp_path / "key.unfinished")
    monkeypatch.setattr(module, "_responses", counted)
    with pytest.raises(Stopped):
        build_language_bank(encoder, slices, PROMPT, noise, {}, unfinished=unfinished)
    again = build_language_bank(encoder, slices, PROMPT, noise, {}, unfinished=unfinished)
    whole_slices = (stop - 1) // 2
    assert len(calls) == stop + 2 * (len(slices) - whole_slices)
    assert torch.equal(again.positives, expected.positives)
    assert torch.equal(again.negatives, expected.negatives)


def test_bank_refuses_responses_that_are_not_finite(encoder, slices, monkeypatch):
    monkeypatch.setattr(
        type(encoder),
        "respond",
        lambda self, tokens, *_: torch.full((len(tokens), WIDTH), torch.nan),
    )
    with pytest.raises(InputError, match="responses to the prompt 'quality' must be finite"):
        build_language_bank(encoder, slices, PROMPT, Perturbation(n=1), {})
