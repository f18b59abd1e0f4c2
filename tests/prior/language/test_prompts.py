from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.ndimage import gaussian_filter

from mrisem.errors import InputError
from mrisem.prior.language.prompts import Prompt, gaussian_blur, make_prompt

CONF = Path(__file__).parents[3] / "conf" / "prompt"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def configured(name, **overrides):
    return instantiate(OmegaConf.merge(OmegaConf.load(CONF / f"{name}.yaml"), overrides))


@pytest.mark.parametrize("name", NAMES)
def test_conf_has_five_different_wordings_with_both_answers(name):
    prompts = [configured(name, wording=index) for index in range(5)]
    assert len({prompt.question for prompt in prompts}) == 5
    for prompt in prompts:
        assert prompt.name == name
        assert prompt.positive in prompt.question
        assert prompt.negative in prompt.question


@pytest.mark.parametrize("name", NAMES)
def test_target_swaps_what_is_wanted_and_not_what_a_bank_depends_on(name):
    straight, swapped = configured(name), configured(name, target="negative")
    assert (straight.wanted, swapped.wanted) == (straight.positive, straight.negative)
    assert straight.facts() == swapped.facts()
    assert straight.facts() != configured(name, wording=1).facts()


def test_sides_are_the_images_that_show_the_answers():
    full, aliased = torch.rand(2, 16, 12, generator=torch.Generator().manual_seed(0))
    quality = configured("high_low_quality").sides(full, aliased)
    assert torch.equal(quality[0], full)
    assert torch.equal(quality[1], aliased)
    artefact = configured("blurred_aliasing").sides(full, aliased)
    torch.testing.assert_close(artefact[0], gaussian_blur(full))
    assert torch.equal(artefact[1], aliased)


@pytest.mark.parametrize("shape", [(40, 40), (33, 46)])
def test_blur_is_that_of_scipy(shape):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected = gaussian_filter(image.numpy(), 2.0, mode="wrap", truncate=8)
    torch.testing.assert_close(gaussian_blur(image), torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_answers_count_without_case_and_punctuation():
    prompt = Prompt("q", "?", "high-quality", "low-quality", target="negative")
    assert prompt.says_wanted(" Low-quality.\n")
    assert not prompt.says_wanted("high-quality")
    assert not prompt.says_wanted("low-quality or not")


def test_bad_prompts_get_one_line():
    with pytest.raises(InputError, match=r"prompt\.wording must be 0 to 1, got 2"):
        make_prompt("q", ["a or b?", "b or a?"], "a", "b", wording=2)
    for options, match in (
        ({"positive_images": "sharp"}, "prompt.positive_images"),
        ({"negative": "a"}, "two different answers"),
    ):
        with pytest.raises(InputError, match=match):
            Prompt(**{"name": "q", "question": "?", "positive": "a", "negative": "b"} | options)
