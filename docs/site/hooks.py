"""What mkdocs needs to show the repository's own pages: files, links, equations, notebooks.

Pages keep their paths, so that a link between two of them works in the repository and on the site.
Files that pages link to, such as a sweep.yaml, are copied beside them.
"""

import json
import re
import subprocess
from html import escape
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = re.compile(r"(README|CONTRIBUTING|CHANGELOG)\.md|(docs|experiments|tests)/.*\.md")
PARTS = {"docs": "Guide", "experiments": "Experiments"}  # folder -> part of the navigation
LINK = re.compile(r"(\]\(<?)([^)\s>#]+)((?:#[^)\s>]*)?>?(?:\s+\"[^\"]*\")?\))")
MATH = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.DOTALL | re.MULTILINE)


def tracked() -> list[str]:
    """Return the files of the repository that are not ignored, relative to its root."""
    listed = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    command = ["git", "-C", str(ROOT), *listed]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sorted({name for name in names.split("\0") if (ROOT / name).is_file()})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and what they link to; notebooks become pages."""
    names = tracked()
    pages = [name for name in names if PAGES.fullmatch(name)]
    assets = {target for page in pages for target in _targets(page)} & set(names) - {*pages}
    for name in [*pages, *sorted(assets)]:
        if name.endswith(".ipynb"):
            page = str(Path(name).with_suffix(".md"))
            text = notebook_page(json.loads((ROOT / name).read_text(encoding="utf-8")))
            files.append(File.generated(config, page, content=text))
        else:
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages that the navigation does not name at the end of their part: none is forgotten."""
    named = set(re.findall(r"'([\w/.]+\.md)'", repr(config.nav)))
    parts = {key: value for entry in config.nav for key, value in entry.items()}
    for name in tracked():
        if PAGES.fullmatch(name) and name not in named:
            part = PARTS.get(name.split("/")[0], "Project")
            parts[part].append({_title(name): name})
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to folders and notebooks into links to pages, and TeX into MathML."""
    folder = Path(page.file.src_uri).parent

    def changed(match: re.Match) -> str:
        target = match[2]
        if target.endswith(".ipynb"):
            target = target.removesuffix(".ipynb") + ".md"
        place = (ROOT / folder / target).resolve()
        if not re.match(r"\w+:", target) and place.is_dir():
            target = f"{target.rstrip('/')}/README.md"
        return f"{match[1]}{target}{match[3]}"

    markdown = MATH.sub(lambda match: f'<div class="math">{mathml(match[1])}</div>', markdown)
    return LINK.sub(changed, markdown)


def mathml(tex: str) -> str:
    """Return TeX as MathML in one line, which browsers show without a script.

    GitHub wants ``aligned`` inside an equation; the converter knows it as ``align*``.
    """
    return convert(" ".join(tex.split()).replace("{aligned}", "{align*}"), display="block")


def notebook_page(notebook: dict) -> str:
    """Return a notebook with its outputs as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        shown = filter(None, map(_output, cell["outputs"]))
        parts += [f'<div class="output">{html}</div>' for html in shown]
    return "\n\n".join(parts) + "\n"


def _output(output: dict) -> str:
    """Return one output as HTML without blank lines; empty for what a terminal's bar wrote."""
    data = output.get("data", {})
    if "image/png" in data:
        png = "".join(data["image/png"]).replace("\n", "")
        return f'<img alt="output of the cell" src="data:image/png;base64,{png}">'
    if "text/html" in data:
        html = re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.DOTALL)
        return "".join(line.strip() for line in html.splitlines())
    text = "".join(output.get("text", data.get("text/plain", "")))
    if output.get("name") == "stderr" or not text.strip():
        return ""
    return f"<pre><code>{escape(text.rstrip()).replace(chr(10), '<br>')}</code></pre>"


def _targets(page: str) -> set[str]:
    """Return the local files that a page links to, relative to the root."""
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    found = set()
    for _, target, _ in LINK.findall(text):
        place = (ROOT / page).parent / target
        if not re.match(r"\w+:", target) and place.resolve().is_relative_to(ROOT):
            found.add(place.resolve().relative_to(ROOT).as_posix())
    return found


def _title(page: str) -> str:
    """Return a page's first heading."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.search(r"^# +(.+)$", text, re.MULTILINE)[1]
