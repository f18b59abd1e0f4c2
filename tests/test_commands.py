"""Every command that a page shows is found by `commands.py`, and is run there or has a reason."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from mrisem.cli import VERBS

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^(?P<fence>```|~~~)(?P<language>.*)\n(?P<text>(?:.*\n)*?)(?P=fence) *$", re.M)
INDENTED = re.compile(r"(?:\A|\n\n)((?: {4}[^\s*\d-].*\n)+)")
PLACEHOLDER = re.compile(r"(?<![\w$])[A-Z]{2,}(?![\w{])")
FIRST_WORDS = ("make", "docker", "python3", "export")  # what a fresh machine has


@pytest.fixture(scope="module")
def commands():
    spec = importlib.util.spec_from_file_location("commands", ROOT / "tests" / "commands.py")
    module = sys.modules["commands"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def by_page(commands):
    """Page -> its commands, of the pages whose commands are run."""
    names = [name for name in commands.pages(ROOT) if name not in commands.LEFT_OUT]
    return {name: [*commands.commands_of(name, (ROOT / name).read_text())] for name in names}


def test_commands_pages_left_out_exist(commands):
    assert {*commands.LEFT_OUT} < {*commands.pages(ROOT)}


def test_commands_of_all_blocks_are_found(commands, by_page):
    n_blocks = 0
    for name, found in by_page.items():
        text, known = (ROOT / name).read_text(), [command.text for command in found]
        blocks = [match.groupdict() for match in BLOCK.finditer(text)]
        blocks += [
            {"language": "sh", "text": re.sub("^    ", "", block, flags=re.M)}
            for block in INDENTED.findall(BLOCK.sub("", text))
        ]
        for block in blocks:
            language = block["language"].split(" ")[0]
            if language == "python":
                assert block["text"] in known
            elif language == "sh":
                n_blocks += 1
                assert {*commands.lines_of(block["text"])} <= {*known}
            else:
                assert language in commands.LANGUAGES
    assert n_blocks > 30


def test_commands_in_sentences_are_found(by_page):
    text = {command.text for found in by_page.values() for command in found}
    assert {"make docs", ".venv/bin/mrisem evaluate output_dir=outputs/demo/runs"} <= text
    assert "mrisem train" not in text  # the name of a verb


def test_commands_without_a_reason_have_no_placeholder(commands, by_page, tmp_path):
    run = [c for found in by_page.values() for c in found if not commands.reason(c, ROOT)]
    assert len(run) > 40
    for command in run:
        if command.language != "python":
            text = re.sub(r"output_dir=(RUN|START)|START/", "", command.text)  # folders it makes
            assert not PLACEHOLDER.search(commands.adapted(text, tmp_path)), command.text
            assert "make" in text or "mrisem" in text or "pre-commit" in text, command.text


def test_commands_that_make_runs_are_targets(commands, by_page):
    makefile = (ROOT / "Makefile").read_text()
    targets = {*re.findall(r"^([a-z-]+):", makefile, re.M), "NAME"}
    for found in by_page.values():
        for command in found:
            for target in re.findall(r"\bmake ([\w-]+)", command.text):
                asks = (ROOT / "experiments" / target.replace("-", "_") / "sweep.yaml").exists()
                assert asks or target in targets or target == "-n", command.text
    assert {*commands.MAKE, *commands.MAKE_RUN} <= targets


def test_commands_of_blocks_begin_with_a_word_that_a_fresh_machine_has(by_page):
    for name, found in by_page.items():
        for command in found:
            if command.language == "sh" and not name.startswith("experiments/"):
                first = command.text.split()[0]
                assert first in FIRST_WORDS or first.startswith(".venv/bin/"), command.text


def test_commands_of_a_verb_are_verbs(by_page):
    for found in by_page.values():
        for command in found:
            for verb in re.findall(r"\bmrisem ([a-z]+) \S+=", command.text):
                assert verb in VERBS, command.text


def test_commands_of_a_block_without_language_are_refused(commands):
    with pytest.raises(ValueError, match=r"page\.md: a block must be"):
        [*commands.commands_of("page.md", "```\nmake demo\n```\n")]


def test_commands_of_a_block_are_joined_and_adapted(commands, tmp_path):
    block = ".venv/bin/mrisem train data=knee data.root=DIR \\\n    model=unet scale=paper  # so\n"
    (command,) = commands.commands_of("page.md", f"```sh\n{block}```")
    assert commands.adapted(command.text, tmp_path).split() == [
        *(".venv/bin/mrisem", "train", "data=knee", f"data.root={tmp_path}/knee"),
        *("model=unet", "scale=smoke"),
    ]


def test_python_of_the_readme_is_that_of_the_page(by_page):
    (readme,) = [c.text for c in by_page["README.md"] if c.language == "python"]
    (page, *_) = [c.text for c in by_page["docs/python.md"] if c.language == "python"]
    assert readme == page
