"""The notebook runs, and the site shows every page."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebooks" / "first_steps.ipynb"
SITE = ROOT / "docs" / "site"


def imported(path):
    """Import a Python file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hooks():
    pytest.importorskip("mkdocs", reason="mkdocs is not installed; make docs installs it")
    pytest.importorskip("latex2mathml", reason="latex2mathml is not installed; see make docs")
    return imported(SITE / "hooks.py")


def test_notebook_runs_and_scores_what_it_shows(tmp_path, monkeypatch):
    """Its kernel has one thread, as tests run side by side."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("MRISEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, 4)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=place).execute()
    made = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in made) == 1
    assert any("unrolled + image_same" in o.get("data", {}).get("text/html", "") for o in made)


def test_notebook_is_small_and_names_no_place():
    text = NOTEBOOK.read_text()
    assert len(text) < 300_000
    assert not re.search(r"/(work|tmp|home|root)/", text)
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert cells[0]["source"][0].startswith("import mrisem")
    assert all(cell["outputs"] for cell in cells)


def test_site_is_built_strictly_and_asks_no_other_host(tmp_path, hooks):
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed; see make docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    done = subprocess.run(
        [*command, "-f", str(SITE / "mkdocs.yml"), "-d", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING -" not in done.stderr
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    assert {"index.html", "docs/api.html", "docs/method.html"} <= pages
    for name in hooks.tracked():
        if hooks.PAGES.fullmatch(name):
            html = re.sub(r"README\.md$", "index.html", name).removesuffix(".md")
            assert html.removesuffix(".html") + ".html" in pages
    for path in tmp_path.rglob("*.html"):
        assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', path.read_text())
    assert "<math" in (tmp_path / "docs" / "method.html").read_text()
    assert "semantic_prior" in (tmp_path / "docs" / "api.html").read_text()


def test_equations_become_mathml(hooks):
    html = hooks.mathml(r"y = \frac{a}{b}")
    assert html.startswith("<math")
    assert "<mfrac>" in html


def test_equations_of_several_lines_are_aligned(hooks):
    html = hooks.mathml(r"\begin{aligned} a &= b \\ c &= d \end{aligned}")
    assert html.count("<mtr>") == 2
    assert "&<" not in html


def test_a_notebooks_bar_is_left_out_and_its_table_kept(hooks):
    outputs = [
        {"output_type": "stream", "name": "stderr", "text": ["50%"]},
        {"output_type": "execute_result", "data": {"text/html": ["<table>\n\n<tr>", "</table>"]}},
    ]
    cell = {"cell_type": "code", "source": ["a = 1"], "outputs": outputs}
    page = hooks.notebook_page({"cells": [cell]})
    assert page == '```python\na = 1\n```\n\n<div class="output"><table><tr></table></div>\n'


@pytest.mark.skipif(shutil.which("git") is None, reason="git was not found; install it")
def test_no_page_is_without_a_place_in_the_site(hooks):
    class Config:
        nav = [{"Guide": []}, {"Experiments": []}, {"Project": []}]  # noqa: RUF012

    nav = hooks.on_config(Config()).nav
    placed = {name for part in nav for pages in part.values() for page in pages
              for name in page.values()}  # fmt: skip
    assert {"docs/images.md", "experiments/main_table/README.md", "CHANGELOG.md"} <= placed
