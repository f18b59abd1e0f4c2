"""The report's page in Chromium: silent, sorted, zoomed, on a phone, in print, by keyboard."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from mrisem.results.record import Record
from mrisem.verbs import evaluate, report

CONF = Path(__file__).parents[2] / "conf"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
CALM = [f"~metrics.{name}" for name in ("haarpsi", "lpips", "hfen", "vif", "tenengrad")]
HOSTILE = (
    "<img src=x onerror=window.hurt=1>",
    '"><script>window.hurt=1</script>',
    "</script><script>window.hurt=1</script>",
    "' onmouseover='window.hurt=1' x='",
    "${oc.env:HOME}{{7*7}}",
)
A4 = {"width": 703, "height": 1000}  # 186 mm between margins of 12, at 96 dots an inch

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium was found; install it: apt-get install chromium"
    ),
    pytest.mark.timeout(300),  # the first makes the page, which takes a busy machine minutes
]


def spoil(run):
    """Write into a run what would run in a page that trusted it."""
    record = Record.load(run / "record.json")
    update = {"overrides": HOSTILE, "model": HOSTILE[0] + HOSTILE[3]}
    update["settings"] = record.settings | {text: text for text in HOSTILE}
    record = record.model_copy(update=update)
    record.save(run / "record.json")
    for path in (run / "reconstructions").glob("*.h5"):
        with h5py.File(path, "a") as file:
            file.attrs.update(record=record.model_dump_json(), acquisition=HOSTILE[1])
            failed = [{"slices": [9], "message": text} for text in HOSTILE]
            file.attrs["failed"] = json.dumps(failed)


@pytest.fixture(scope="module")
def address(run_folders_in, tmp_path_factory):
    """A page with every section that a report can have but the UMAP."""
    folders = run_folders_in(tmp_path_factory.mktemp("page"))
    targets = folders.targets()
    with h5py.File(targets / "a.h5", "a") as file:
        file["reconstruction_rss"][1, 8:12, 8:12] += 1e-3
        labels = np.zeros((4, 24, 20), dtype=np.uint8)
        labels[1, 8:12, 8:12] = 1
        file["lesions"] = labels
    folders.add("1", "zero_filled")
    folders.add("2", "unrolled")
    guided = [
        folders.add(f"3_{x}", "unrolled + image_same", overrides=[f"prior.weight={x}"])
        for x in (0.002, 0.02, 0.2)
    ]
    for run in guided:
        folders.add_curves(run)
    for share, run in zip((1, 1.01, 1.03), guided, strict=True):  # no two changed the same
        with h5py.File(run / "reconstructions/a.h5", "a") as file:
            file["reconstruction"][...] = share * file["reconstruction"][()]
    folders.add("4", "unrolled", rate=8)
    spoil(folders.add("5", "zero_filled", rate=8))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        where = f"output_dir={folders.runs}"
        evaluate.run(compose("evaluate", overrides=[where, *CALM]))
        report.run(compose("report", overrides=[where, f"runs=[{folders.runs}]"]))
    return (folders.runs / "report/index.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed; install the extra dev"
    )
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def open_page(browser, address):
    """Open the page; ``said`` gathers console messages and errors, ``asked`` requests."""
    contexts = []

    def opened(**settings):
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()


def unfold(page):
    """Open all that the page folds, but for single runs."""
    page.evaluate("document.querySelectorAll('section > details').forEach(d => { d.open = true })")


def methods(page):
    rows = page.locator("table.scores").first.locator("tbody tr")
    return rows.evaluate_all("rows => rows.map(row => JSON.parse(row.dataset.values)[0])")


def scores(page, column, table=None):
    """Return a column's numbers as they stand, and the heading's sorting."""
    table = page.locator("table.scores").first if table is None else table
    heads = table.locator("thead th")
    texts = heads.all_inner_texts()
    at = next(at for at, text in enumerate(texts) if text.startswith(column))
    rows = table.locator("tbody tr")
    values = rows.evaluate_all(f"rows => rows.map(row => JSON.parse(row.dataset.values)[{at}])")
    return values, heads.nth(at).get_attribute("aria-sort")


def shown(table, nth):
    """Return the numbers that a reader sees in the nth column, without marks."""
    texts = table.locator(f"tbody tr > :nth-child({nth})").all_inner_texts()
    return [float(text.lstrip("★ ").split()[0]) for text in texts]


def zooms(row):
    """Return the distinct transforms of the images that are seen: factor and origin in shares."""
    found = row.locator(".layer:visible:not(.inset .layer)").evaluate_all(
        """layers => layers.map(layer => {
          const style = getComputedStyle(layer), scale = new DOMMatrix(style.transform).a;
          const [x, y] = style.transformOrigin.split(" ").map(parseFloat);
          const shares = [100 * x / layer.offsetWidth, 100 * y / layer.offsetHeight];
          return [scale, ...shares.map(Math.round)].join(" ");
        })"""
    )
    return len(found), {tuple(map(float, one.split())) for one in set(found)}


def test_page_asks_for_nothing_and_says_nothing(open_page, address):
    page = open_page()
    page.locator("th button").first.click()
    page.locator(".view").first.click()
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")
    assert [url for url in page.asked if not url.startswith("data:")] == [address]
    assert page.said == []
    broken = "images => images.filter(image => !(image.complete && image.naturalWidth)).length"
    assert page.locator("img").evaluate_all(broken) == 0


def test_page_runs_nothing_that_a_run_folder_says(open_page):
    page = open_page()
    for cell in page.locator("tbody tr, figcaption, pre, option").all()[:80]:
        cell.dispatch_event("mouseover")
    assert page.evaluate("window.hurt") is None
    assert page.locator("[onerror], [onmouseover], main script, img[src=x]").count() == 0
    shown = page.locator("#runs").text_content()
    assert all(text in shown for text in HOSTILE)


def test_page_sorts_by_click_and_by_keyboard(open_page):
    page = open_page()
    before = methods(page)
    psnr = page.get_by_role("button", name="PSNR").first
    psnr.click()
    values, order = scores(page, "PSNR")
    assert (values, order) == (sorted(values, reverse=True), "descending")
    assert len(set(values)) > 1
    psnr.click()
    assert scores(page, "PSNR") == (values[::-1], "ascending")
    page.get_by_role("button", name="NMSE").first.focus()
    page.keyboard.press("Enter")
    values, order = scores(page, "NMSE")
    assert (values, order) == (sorted(values), "ascending")  # lower is better: best first
    page.keyboard.press("Space")
    assert scores(page, "NMSE") == (values[::-1], "descending")
    assert sorted(methods(page)) == sorted(before)


@pytest.mark.parametrize(
    ("name", "column", "nth", "largest_first"),
    [("What the prior changed", "difference", 4, True), ("Lesions", "NMSE", 5, False)],
)
def test_page_sorts_audit_and_lesions_too(open_page, name, column, nth, largest_first):
    page = open_page()
    unfold(page)
    table = page.locator(f".scroll[aria-label^='{name}'] table").first
    first = "descending" if largest_first else "ascending"
    head = table.get_by_role("button", name=column)
    head.click()
    values, order = scores(page, column, table)
    assert (values, order) == (sorted(values, reverse=largest_first), first)
    assert len(set(values)) > 1
    seen = shown(table, nth)
    assert seen == sorted(seen, reverse=largest_first)
    head.click()
    assert scores(page, column, table)[0] == values[::-1]


def test_page_shows_difference_maps_as_tiles_that_zoom_with_their_colour_bar(open_page):
    page = open_page(color_scheme="dark")
    unfold(page)
    maps = page.locator("details.maps")
    assert maps.count() == 3  # runs with a prior
    row = maps.first.locator(".tiles").first
    names = ["target", "no prior", "prior", "prior - no prior", "target - no prior"]
    assert row.locator("figcaption").all_inner_texts() == names
    row.locator(".view").first.click()
    n, found = zooms(row)
    assert n == 5
    assert {factor for factor, *_ in found} == {3}
    bar = maps.first.locator(".scale")
    low, high = bar.locator("span").all_inner_texts()
    assert float(low.strip("\N{MINUS SIGN}% ")) == float(high.partition("%")[0].strip("+ ")) > 0
    gradient = bar.locator("i").evaluate("bar => getComputedStyle(bar).backgroundImage")
    assert gradient.count("rgb") == 9
    assert gradient.split("rgb")[5].startswith("(27, 27, 26)")  # no change: dark, in the middle


def test_page_zooms_all_images_of_a_row_by_click_and_drag(open_page):
    page = open_page()
    row, other = (page.locator(".stage").nth(i) for i in range(2))
    view = row.locator(".panel:visible .view").nth(1)
    view.scroll_into_view_if_needed()
    box = view.bounding_box()
    view.click(position={"x": box["width"] / 4, "y": box["height"] / 2})
    n, found = zooms(row)
    assert n == 12  # what flickers, target, five runs, five error maps
    ((factor, x, y),) = found
    assert factor == 3
    assert (x, y) == pytest.approx((25, 50), abs=1)
    assert zooms(other)[1] == {(1, 50, 50)}
    box = view.bounding_box()
    start = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] - box["width"] / 2, start[1], steps=4)
    page.mouse.up()
    moved = zooms(row)[1]  # in pixels of tiles of two sizes
    assert {factor for factor, *_ in moved} == {3}  # a drag is no click
    # half a tile, a quarter of what is hidden
    assert [place for _, place, _ in moved] == pytest.approx([x + 25] * len(moved), abs=3)
    view.click()
    assert {factor for factor, *_ in zooms(row)[1]} == {1}


def test_page_is_reached_and_zoomed_by_keyboard_alone(open_page):
    page = open_page()
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.className || document.activeElement.tagName")
        )
        if "stage" in reached[-1]:
            break
    assert "stage" in reached[-1]
    assert {"A", "scroll", "BUTTON"} <= set(reached)
    row = page.locator(".stage").first
    assert row.evaluate("row => getComputedStyle(row).outlineStyle") == "solid"
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert zooms(row)[1] == {(2.25, 50, 50)}
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert zooms(row)[1] == {(2.25, 55, 45)}
    page.keyboard.press("-")
    assert zooms(row)[1] == {(1.5, 55, 45)}
    page.keyboard.press("Escape")
    assert zooms(row)[1] == {(1, 50, 50)}


def test_page_fits_a_phone(open_page):
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("window.innerWidth") == 390  # nothing made it zoom out
    region = page.locator(".scroll").first
    assert region.evaluate("box => box.scrollWidth > box.clientWidth")  # the table moves by itself
    row = page.locator(".stage").first
    row.locator(".panel:visible .view").first.tap()
    assert {factor for factor, *_ in zooms(row)[1]} == {3}


def test_page_prints_whole_and_light(open_page):
    page = open_page(color_scheme="dark", viewport=A4)
    page.emulate_media(media="print", color_scheme="dark")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    wide = "boxes => boxes.filter(box => box.scrollWidth > box.clientWidth + 1).length"
    assert page.locator(".scroll").evaluate_all(wide) == 0
    page.emulate_media(media=None)
    printed = page.pdf(format="A4", prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    assert 2 <= printed.count(b"/Type /Page\n") <= 30


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_page_says_first_what_came_out_and_of_what(open_page, width, scheme):
    page = open_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.emulate_media(color_scheme=scheme)
    assert page.locator("h1").inner_text().startswith("Does guidance by")
    seen = " ".join(page.locator(".verdict, .facts").all_text_contents())
    assert "2 subjects: too few for a test" in seen
    assert "not recorded whether measured" in seen
    assert "gaussian R=4" in seen
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1440:
        assert page.locator(".facts").bounding_box()["y"] < 900
        assert page.locator("table.scores").first.evaluate(
            "table => table.scrollWidth <= table.parentElement.clientWidth"
        )
        figures = page.locator(".drawn img:visible")
        assert figures.count() >= 3
        wide = "images => images.filter(i => i.clientWidth > 1.01 * i.getAttribute('width')).length"
        assert figures.evaluate_all(wide) == 0
    image = page.screenshot(full_page=True)
    assert image.startswith(b"\x89PNG")


def test_viewer_shows_slices_windows_errors_and_lesions(open_page):
    page = open_page()
    viewer = page.locator(".viewer").first
    options = viewer.locator(".slice option").all_inner_texts()
    assert len(options) == 2
    lesion = next(i for i, text in enumerate(options) if "lesion" in text)
    viewer.locator(".slice").select_option(str(1 - lesion))
    assert viewer.locator(".inset:visible").count() == 0
    viewer.locator(".slice").select_option(str(lesion))
    assert viewer.locator(".panel:visible").count() == 1
    assert viewer.locator(".inset:visible").count() == 6  # target and five runs
    mark = viewer.locator(".panel:visible .layer i").first
    assert mark.evaluate("e => e.offsetWidth < 0.9 * e.parentElement.offsetWidth")
    grey = viewer.locator(".panel:visible .grey img").first
    look = "image => getComputedStyle(image).filter"
    assert grey.evaluate(look) == "brightness(1.5) contrast(1)"
    viewer.locator(".width").fill("50")  # 25 to 75 % of the window: slope 3, -0.5 at 0
    bright, contrast = (float(x.split("(")[1]) for x in grey.evaluate(look)[:-1].split(") "))
    assert bright * contrast == pytest.approx(3, rel=1e-4)
    assert (1 - contrast) / 2 == pytest.approx(-0.5, rel=1e-4)
    pane = viewer.locator(".pane")
    viewer.locator(".second").select_option("zero_filled")
    assert pane.locator("figcaption").inner_text() == "B: zero_filled"
    source = "image => image.src"
    tiles = viewer.locator(".panel:visible figure[data-method='zero_filled'] img:not(.inset img)")
    assert pane.locator("img").evaluate(source) == tiles.nth(0).evaluate(source)
    viewer.locator(".errors").check()
    assert pane.locator("img").evaluate(source) == tiles.nth(1).evaluate(source)


def test_viewer_flickers_between_two_methods_until_it_is_stopped(open_page):
    page = open_page()
    viewer = page.locator(".viewer").first
    caption, button = viewer.locator(".pane figcaption"), viewer.locator(".flicker")
    first = caption.inner_text()
    assert first.startswith("A: unrolled")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    for letter in "BAB":
        viewer.locator(".pane figcaption", has_text=f"{letter}: ").wait_for()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
