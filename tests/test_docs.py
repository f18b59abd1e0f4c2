"""Pages of the project: what they link to exists, and no file cites a page that does not ship."""

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."]
MADE = ("outputs", "multirun", "build", "dist")  # by runs, not by people
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for f in FOLDERS if f.name not in MADE for page in f.rglob("*.md"))]
)
LINK = re.compile(
    r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)"  # [text](target "title")
    r"|^\[[^\]]+\]: +(\S+)"  # [name]: target
    r"|<(?:img|a) [^>]*(?:src|href)=\"([^\"]+)\"",
    re.MULTILINE,
)
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.DOTALL | re.MULTILINE)
# docs/method.md ships and its sections have no numbers; another page of that name does not ship
UNSHIPPED = re.compile(r"house\.md|(?<!docs/)(?<!\]\()\bmethod\.md|method\.md\)?,? (?:section|§)")
RECIPE = re.compile(r"\bexperiment=(\w+)")


def links(page):
    """Return the local targets of a page's links and pictures: path and heading."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [unquote("".join(target)) for target in LINK.findall(text)]
    return [target.partition("#")[::2] for target in targets if not re.match(r"\w+:", target)]


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tracked_files():
    """Return the files that git keeps."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_docs_links_of_a_text_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        '[a](b.md#c-d) ![p](q/r.png "title") [w](https://x.org/y.md) [h](#e)\n'
        "```\n[n](no.md)\n```\n## E, f: g\n"
    )
    assert links(page) == [("b.md", "c-d"), ("q/r.png", ""), ("", "e")]
    assert anchors(page) == {"e-f-g"}


def broken(page, root):
    """Return the local links and pictures of a page that lead nowhere, or out of ``root``."""
    found = []
    for name, heading in links(page):
        target = (page.parent / name).resolve() if name else page
        inside = target.exists() and target.is_relative_to(root.resolve())
        if not inside or (heading and target.suffix == ".md" and heading not in anchors(target)):
            found.append(f"{name}#{heading}" if heading else name)
    return found


def test_docs_broken_links_are_found(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path.parent / "outside.md").touch()
    (tmp_path / "docs" / "there.md").write_text("# A heading\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[1](docs/there.md#a-heading) [2](docs) [3](https://x.org) [4](#page)\n# Page\n"
        '[5](docs/gone.md) ![6](gone.png) [7](docs/there.md#gone) [8](#gone) <img src="g.png">\n'
        "[9](../outside.md)\n[r]: gone/r.md\n"
    )
    wrong = ["docs/gone.md", "gone.png", "docs/there.md#gone", "#gone", "g.png"]
    assert broken(page, tmp_path) == [*wrong, "../outside.md", "gone/r.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_docs_local_links_and_pictures_exist(page):
    assert not broken(page, ROOT)


def test_docs_all_tracked_pages_are_read():
    assert {path for path in tracked_files() if path.suffix == ".md"} <= set(PAGES)


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("see docs/method.md", False),
        ("[the method](method.md#problem)", False),
        ("see method.md", True),
        ("(docs/method.md section 6)", True),
        ("../shared/method.md", True),
        ("by house.md", True),
    ],
)
def test_docs_a_citation_of_a_page_that_does_not_ship_is_seen(text, cited):
    assert bool(UNSHIPPED.search(text)) == cited


def test_docs_no_file_cites_a_page_that_does_not_ship():
    citing = []
    for path in tracked_files():
        if path == Path(__file__).resolve() or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # weights and pictures
        for found in UNSHIPPED.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            citing.append(f"{path.relative_to(ROOT)}:{line}: {found.group()}")
    assert not citing


def test_docs_recipes_that_pages_name_exist():
    recipes = {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")}
    for page in PAGES:
        assert {*RECIPE.findall(page.read_text(encoding="utf-8"))} <= recipes, page.name
