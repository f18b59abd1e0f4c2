"""Run every `sh` and `python` block of README and docs on a fresh clone: `make docs-commands`.

DIR is simulated data, IMAGES a folder of images; sizes are those of scale=smoke. What cannot run
here is named with its reason. Exit code 1 when a block fails.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SCALED = re.compile(r"\bmrisem (simulate|bank|train|reconstruct|doctor)\b")
NOT_HERE = {  # what a line holds -> why it is not run
    "make ": "a make target: the gate runs them",
    "hf download": "downloads weights",
    "--config-dir": "run by tests/test_extending.py, with the files of its page",
    "export PYTHONPATH": "run by tests/test_extending.py",
    "pip install": "installs packages",
    "-m venv": "installs packages",
    "docker ": "needs a Docker daemon",
}


@dataclass
class Outcome:
    """A block, and what became of it: ran, failed, or why it was not run."""

    page: str
    first_line: str
    state: str
    seconds: float = 0.0


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return language and text of each block of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands_of(block: str) -> list[str]:
    """Return the commands of a block: lines that end in a backslash continue.

    >>> commands_of("a b \\\\\\n   c # d\\n\\ne\\n")
    ['a b    c', 'e']
    """
    joined = re.sub(r"\\\n", "", block)
    lines = (re.sub(r"\s+# .*|^#.*", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def adapted(command: str, data: Path) -> str:
    """Put simulated data and small sizes into a command."""
    anatomy = "knee" if "data=knee" in command else "brain"
    command = re.sub(r"\bDIR\b", str(data / anatomy), command)
    command = re.sub(r"\bIMAGES\b", str(data / "images"), command)
    command = command.replace("scale=paper", "scale=smoke").replace("scale=demo", "scale=smoke")
    command = command.replace("encoder=janus_pro_1b", "encoder=janus_mini")
    if SCALED.search(command) and "scale=" not in command:
        command += " scale=smoke"
    if "paper_unrolled" in command:  # its encoder is Janus-Pro, whose weights are not here
        command += " encoder=janus_mini"
    return command


def adapted_python(block: str, data: Path) -> str:
    """Put simulated data into a Python block."""
    file = next((data / "brain" / "multicoil_val").glob("*AXT2*.h5"))
    block = block.replace('"file_brain_AXT2_5000.h5"', repr(str(file)))
    return block.replace('"DIR"', repr(str(data / "brain")))


def reason(block: str) -> str:
    """Return why a block is not run here; empty where it is."""
    return next((why for word, why in NOT_HERE.items() if word in block), "")


def run(argv: list[str] | str, clone: Path) -> str:
    """Run a command in the clone; return "" or the end of what it said."""
    names = {"PYTHONPATH": str(clone), "MRISEM_CACHE": str(clone / "outputs" / "cache")}
    names["PATH"] = f"{clone}/.venv/bin:{os.environ['PATH']}"
    done = subprocess.run(
        argv, cwd=clone, env=os.environ | names, shell=isinstance(argv, str),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else f"exit {done.returncode}: {done.stderr[-400:].strip()}"


def make_data(clone: Path) -> Path:
    """Simulate scans, and images of heads, for the blocks."""
    import nibabel
    import numpy as np

    data = clone / "outputs" / "data"
    words = f"n_train=4 scale=smoke output_dir={data}"
    if said := run(f".venv/bin/mrisem simulate {words}", clone):
        sys.exit(said)
    grid = np.stack(np.meshgrid(*3 * [np.linspace(-1, 1, 56)], indexing="ij"))
    (data / "images").mkdir()
    for number in range(5):
        size = np.array([0.6, 0.7 + 0.02 * number, 0.65]).reshape(3, 1, 1, 1)
        head = 400 * np.exp(-((np.square(grid / size).sum(0)) ** 2))
        image = nibabel.Nifti1Image(head.astype(np.int16), np.diag([3.0, 3.0, 3.0, 1.0]))
        nibabel.save(image, data / "images" / f"head_{number}.nii.gz")
    return data


def run_page(page: Path, clone: Path, data: Path) -> list[Outcome]:
    """Run the blocks of a page, in order."""
    outcomes = []
    for language, block in blocks(page):
        outcome = Outcome(str(page.relative_to(ROOT)), block.splitlines()[0], reason(block))
        if not outcome.state:
            start = time.perf_counter()
            if language == "python":
                said = run([sys.executable, "-c", adapted_python(block, data)], clone)
            else:
                lines = [adapted(command, data) for command in commands_of(block)]
                said = next(filter(None, (run(line, clone) for line in lines)), "")
            outcome.state = f"FAILED: {said}" if said else "ran"
            outcome.seconds = time.perf_counter() - start
        outcomes.append(outcome)
        print(f"{outcome.page}: {outcome.first_line[:60]}: {outcome.state}", flush=True)
    return outcomes


def main() -> None:
    """Run all pages, or those named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, help="README.md docs/images.md ...")
    pages = parser.parse_args().pages or [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        (clone / ".venv").symlink_to((ROOT / ".venv").resolve())
        data = make_data(clone)
        outcomes = [o for page in pages for o in run_page(page.resolve(), clone, data)]
    ran = [o for o in outcomes if o.state == "ran"]
    failed = [o for o in outcomes if o.state.startswith("FAILED")]
    seconds = sum(o.seconds for o in outcomes)
    print(f"== {len(ran)} ran, {len(failed)} failed, "
          f"{len(outcomes) - len(ran) - len(failed)} not run here; {seconds:.0f} s")  # fmt: skip
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
