"""Run every command of README and pages on a fresh clone: `make docs-commands`.

A command is a line of a `sh` block, a `python` block, or a whole command in a sentence or table.
DIR is simulated data, IMAGES a folder of images, RUN a run; sizes are those of scale=smoke. What
is not run is named with its reason. Exit code 1 when a command fails.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
LEFT_OUT = {  # page -> why none of its commands is run
    "CHANGELOG.md": "says what changed; the pages have the commands",
    "docs/extending.md": "tests/test_extending.py runs its files, with the built wheel",
    "docs/notebooks/first_steps.ipynb": "tests/test_site.py runs the notebook",
    "experiments/main_table/earlier.md": "results of earlier versions, by their commands",
}
LANGUAGES = {"math", "yaml", "toml", "text"}  # of blocks that are no commands
IN_TEXT = re.compile(  # a command in a sentence or table; a verb alone is a name
    r"(\w+=\S+ )*(make [\w-]+|(\.venv/bin/)?mrisem (\w+|VERB|-sc) \S|\.venv/bin/\S|python |pip "
    r"|git |hf |docker |sbatch |srun |torchrun |wandb |eval )"
)
MAKE_RUN = ("help", "check", "docs", "format")
MAKE = {  # target -> why it is not run
    "setup": "installs packages: the gate runs it",
    "demo": "takes minutes at scale=demo; its verbs run here at scale=smoke",
    "test": "the tests: the gate runs them",
    "test-slow": "the tests that take minutes each",
    "bench": "takes an hour, and 17 GB",
    "tune-baselines": "takes minutes",
    "pretrain": "takes hours",
    "experiments": "takes hours; tests/test_experiments.py composes all of its jobs",
    "notebook": "tests/test_site.py runs the notebook",
    "docs-commands": "is this script",
    "NAME": "NAME stands for a question",
}
NOT_HERE = {  # what a command holds -> why it is not run
    r"hf download": "downloads weights",
    r"pip install|-m venv": "installs packages",
    r"^docker ": "needs a Docker daemon",
    r"^wandb sync|dashboard\.py": "needs a server of wandb",
    r"srun|torchrun|sbatch|slurm|trainer\.devices|launcher=ray": "needs several devices or "
    "processes: tests/verbs/test_devices.py, tests/test_slurm.py, tests/test_ray.py",
    r"\bVERB\b": "VERB stands for each verb: tests/test_startup.py",
    r"^git show": "shows a page of an earlier commit",
    r"heads/|knees|measure\.py|real\.sh": "needs images of real heads and knees, which do not ship",
    r"tune\.py": "takes minutes",
    r"run\.sh": "trains for hours",
    r"pairs=FILE|path=MODEL": "needs a file of your own: tests/adaptation, tests/prior/generative",
    r"device\.py": "needs a GPU",
}
NEEDS = {"bank": "data.root", "train": "data.root", "reconstruct": "data.root", "report": "runs="}
SMALL_RECIPE = (  # the U-Net's of scale=smoke, one level
    "scale.unrolled.channels=4 scale.unrolled.levels=2 fit.iterations=3 prior.level_weights=null "
    "prior.components=null mask.calibration_lines=10"
)
STAMPS = "make -o .venv/.up-to-date -o .venv/.docs-up-to-date"  # installs nothing


@dataclass
class Command:
    """A command of a page, and what became of it: ran, failed, or why it was not run."""

    page: str
    text: str
    language: str  # sh, python; text where it stands in a sentence or table
    state: str = ""
    seconds: float = 0.0


def pages(root: Path) -> list[str]:
    """Return all pages and notebooks that git keeps, the README first."""
    listed = ["git", "-C", str(root), "ls-files", "*.md", "*.ipynb"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    return sorted(names, key=lambda name: (name != "README.md", name))


def commands_of(page: str, text: str) -> Iterator[Command]:
    """Yield the commands of a page in order.

    Raises:
        ValueError: a block has no language, or one that is not known.
    """
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type in ("fence", "code_block"):
            # an indented block has no language: it is a command's
            language = "sh" if token.type == "code_block" else (token.info.split() or [""])[0]
            if language == "python":
                yield Command(page, token.content, language)
            elif language == "sh":
                yield from (Command(page, line, language) for line in lines_of(token.content))
            elif language not in LANGUAGES:
                block = token.content.splitlines()[0]
                raise ValueError(f"{page}: a block must be ```sh, python or of {sorted(LANGUAGES)},"
                                 f" got {language!r} for {block!r}")  # fmt: skip
        for child in token.children or ():
            if child.type == "code_inline" and IN_TEXT.match(child.content):
                yield Command(page, " ".join(child.content.split()), "text")


def lines_of(block: str) -> list[str]:
    """Return the commands of a block: lines that end in a backslash continue.

    >>> lines_of("a b \\\\\\n   c # d\\n\\ne\\n")
    ['a b    c', 'e']
    """
    joined = re.sub(r"\\\n", "", block)
    lines = (re.sub(r"\s+# .*|^#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def reason(command: Command, root: Path) -> str:
    """Return why a command is not run here; empty where it is."""
    text = command.text
    if made := re.search(r"\bmake ([\w-]+)", text):
        question = root / "experiments" / made[1].replace("-", "_") / "sweep.yaml"
        return MAKE["experiments"] if question.exists() else MAKE.get(made[1], "")
    verb = re.match(r"(?:\.venv/bin/)?mrisem (\w+)", text)
    needed = NEEDS.get(verb[1], "") if verb else ""
    if command.language == "text" and needed not in text and "RUN" not in text:
        return "names an option; no whole command"
    return next((why for words, why in NOT_HERE.items() if re.search(words, text)), "")


def adapted(text: str, data: Path) -> str:
    """Put simulated data and small sizes into a command."""
    text = re.sub(r"(?<![=\w])RUN\b", "data=brain data.root=DIR model=unrolled prior=image_same "
                  "output_dir=runs/brain", text)  # fmt: skip
    anatomy = "knee" if "data=knee" in text else "brain"
    if "data.axes" in text:
        anatomy = "arrays"
    if "mask=from_file" in text and "mask.path" not in text:
        anatomy = "undersampled"
    text = re.sub(r"\bDIR/(?=brain|knee)", f"{data}/", text)
    text = re.sub(r"\bDIR\b", str(data / anatomy), text)
    text = re.sub(r"\bIMAGES\b", str(data / "images"), text)
    text = text.replace("outputs/demo", "outputs/first").replace("size=256", "size=96")
    if "unrolled_mini" not in text:  # which has the sizes of scale=demo
        text = re.sub(r"scale=(paper|demo)", "scale=smoke", text)
    text = text.replace("encoder=janus_pro_1b", "encoder=janus_mini")
    verb = re.search(r"\bmrisem (simulate|bank|train|compress|reconstruct|doctor)\b", text)
    if verb and "scale=" not in text:
        text += " scale=smoke"
    if verb and verb[1] == "reconstruct" and "max_slices" not in text:
        text += " data.max_slices=1"
    if "mrisem compress " in text and "pruned" not in text:
        text += " compression.n_batches=2 compression.steps=2"
    if "mrisem adapt " in text:
        text += " steps=2 n_images=2 n_subjects=3"
    if "paper_unrolled" in text:  # Janus-Pro's weights are not here; the recipe has sizes itself
        text += f" encoder=janus_mini {SMALL_RECIPE}"
    return re.sub(r"^make\b", STAMPS, text)


def adapted_python(block: str, data: Path) -> str:
    """Put simulated data into a Python block."""
    file = next((data / "brain" / "multicoil_val").glob("*AXT2*.h5"))
    block = block.replace('"file_brain_AXT2_5000.h5"', repr(str(file)))
    return block.replace('"DIR"', repr(str(data / "brain")))


class Clone:
    """A fresh clone in which commands run, with the environment of this checkout."""

    def __init__(self, folder: Path) -> None:
        self.root, self.data = folder / "clone", folder / "clone" / "outputs" / "data"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self.root)], check=True)
        (self.root / ".venv").symlink_to((ROOT / ".venv").resolve())
        path = f"{self.root}/.venv/bin:{os.environ['PATH']}"
        self.names = os.environ | {"PYTHONPATH": str(self.root), "PATH": path, "MPLBACKEND": "Agg"}
        self.names |= {"MRISEM_CACHE": str(folder / "cache")}
        from conftest import IMPORTED, Forked  # as tests have it: torch is imported once for all

        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        self.start = lambda words: Forked(
            context, words, self.root, self.names, Path(tempfile.mkdtemp(dir=folder))
        )

    def run(self, text: str) -> str:
        """Run a command; return "" or the end of what it said."""
        words = shlex.split(text)
        if Path(words[0]).name == "mrisem" or words[0].endswith(".py"):
            words[0] = "mrisem" if Path(words[0]).name == "mrisem" else words[0]
            process = self.start(words)
            _, said = process.communicate(timeout=900)
        else:
            process = subprocess.Popen(
                ["bash", "-c", text], cwd=self.root, env=self.names, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            said, _ = process.communicate()
        return "" if process.returncode == 0 else f"exit {process.returncode}: {said[-400:]}"

    def try_command(self, command: Command) -> None:
        """Run a command of a page and keep what became of it."""
        start = time.perf_counter()
        if command.language == "python":
            script = self.root / "outputs" / "block.py"
            script.write_text(adapted_python(command.text, self.data))
            said = self.run(str(script))
        else:
            said = self.run(adapted(command.text, self.data))
        command.state = f"FAILED: {' '.join(said.split())}" if said else "ran"
        command.seconds = time.perf_counter() - start


def make_data(clone: Clone) -> None:
    """Write what the commands take: scans, arrays, undersampled scans, images, a mask, a run."""
    data = clone.data
    simulate = f".venv/bin/mrisem simulate n_train=4 scale=smoke output_dir={data}"
    if said := clone.run(f"bash -c {shlex.quote(simulate)}"):  # the console script, not the fork
        sys.exit(said)
    script = clone.root / "tests" / "commands_data.py"
    if said := clone.run(f"{script} {data} {clone.root}"):
        sys.exit(said)
    run = f"mrisem reconstruct data=brain data.root={data}/brain model=zero_filled output_dir=RUN"
    if said := clone.run(f"{run} scale=smoke data.max_slices=1"):
        sys.exit(said)


def run_page(page: str, clone: Clone, places: dict[str, str]) -> list[Command]:
    """Run the commands of a page, in order.

    Args:
        page: path in the clone.
        clone: where they run.
        places: command -> page where it stood first, which is written: each is run once.
    """
    found = list(commands_of(page, (clone.root / page).read_text(encoding="utf-8")))
    for command in found:
        command.state = reason(command, clone.root)
        if not command.state and command.text in places:
            command.state = f"as in {places[command.text]}"
        if not command.state:
            places[command.text] = page
            clone.try_command(command)
        shown = " ".join(command.text.split())[:90]
        print(f"{page}: {shown}: {command.state} ({command.seconds:.0f} s)", flush=True)
    return found


def main() -> None:
    """Run all pages, or those named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="README.md docs/images.md ...")
    named = parser.parse_args().pages or pages(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        clone = Clone(Path(folder))
        make_data(clone)
        outcomes, places = [], {}
        for page in named:
            if page in LEFT_OUT:
                print(f"{page}: not run: {LEFT_OUT[page]}")
            else:
                outcomes += run_page(page, clone, places)
    ran = [command for command in outcomes if command.state == "ran"]
    failed = [command for command in outcomes if command.state.startswith("FAILED")]
    seconds = sum(command.seconds for command in outcomes)
    print(f"== {len(ran)} ran, {len(failed)} failed, "
          f"{len(outcomes) - len(ran) - len(failed)} not run here; {seconds:.0f} s")  # fmt: skip
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
