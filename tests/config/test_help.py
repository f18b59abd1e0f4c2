"""`mrisem VERB --help`: one screen; its options exist, its defaults and examples are true."""

import re
import shlex
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from mrisem.cli import VERBS
from mrisem.config import help as verb_help
from mrisem.config.compose import CONF
from mrisem.config.overrides import repair

OPTION = re.compile(r"  ([\w.]+)=(\S*)  +\S")


@pytest.fixture(scope="module")
def text():
    @cache
    def of(verb, *words):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", "100")
            return verb_help.help_text(verb, VERBS[verb], words, [])

    return of


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_one_screen_with_three_examples(text, verb):
    lines = text(verb).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert VERBS[verb] in lines[0]
    assert sum(line.startswith(f"  mrisem {verb}") for line in lines) == 3


@pytest.mark.parametrize("verb", VERBS)
def test_help_states_options_that_exist_and_their_defaults(text, verb):
    stated = dict(
        found.groups() for line in text(verb).splitlines() if (found := OPTION.match(line))
    )
    assert len(stated) >= 4
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(verb, return_hydra_config=True)
    choices = config.hydra.runtime.choices
    for key, value in stated.items():
        if key in choices:
            assert value == (choices[key] or "null")
        elif key in ("output_dir", "paths.cache"):
            assert value
        else:
            expected = OmegaConf.select(config, key, throw_on_missing=True)
            if OmegaConf.is_list(expected):
                expected = [*expected]
            assert value == str(
                {None: "null", True: "true", False: "false"}.get(
                    expected if isinstance(expected, bool | None) else "", expected
                )
            ).replace(" ", "").replace("'", "")


@pytest.mark.parametrize("verb", VERBS)
def test_examples_of_help_compose(text, verb):
    for line in text(verb).splitlines():
        if not line.startswith(f"  mrisem {verb}"):
            continue
        words = [word for word in shlex.split(line)[2:] if not word.startswith("-")]
        words = [word.partition(",")[0] if "=none," in word else word for word in words]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            try:
                compose(verb, words)
            except ConfigCompositionException:  # an option that the YAML leaves out
                compose(verb, repair(verb, words, CONF, ()))


def test_help_follows_the_options_beside_it(text):
    assert "  model=inr " in text("reconstruct", "model=inr")
    assert "  fit.iterations=1500 " in text("reconstruct", "scale=paper")


def test_every_sentence_is_of_an_option_of_some_verb():
    shown = {key for keys in verb_help._OPTIONS.values() for key in keys}
    assert {key.split()[-1] for key in verb_help._SENTENCES} == shown
