"""`mrisem report` on tiny run folders, and its page in a browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from mrisem.types import InputError
from mrisem.verbs import evaluate, report

METHODS = (("1_zf", "zero_filled"), ("2_un", "unrolled"), ("3_prior", "unrolled + image_same"))
LIGHT = [f"~metrics.{name}" for name in ("haarpsi", "lpips", "nmse", "hfen", "tenengrad")]


@pytest.fixture
def evaluated(run_folders, compose):
    """Three runs of the brain, each evaluated by itself."""
    run_folders.targets(files=("a.h5", "b.h5"))
    runs = [run_folders.add(name, method) for name, method in METHODS]
    run_folders.add_curves(runs[2])
    for run in runs:
        evaluate.run(compose("evaluate", f"output_dir={run}", *LIGHT))
    return runs


@pytest.fixture
def make_report(compose, tmp_path, capsys):
    def made(runs, *overrides, output="out"):
        listed = ",".join(str(run) for run in runs)
        target = f"output_dir={tmp_path / output}"
        assert report.run(compose("report", f"runs=[{listed}]", target, *overrides)) == 0
        return capsys.readouterr().out.splitlines()

    return made


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.images = [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.found += [
            attributes[k] for k in ("src", "href", "srcset", "action") if k in attributes
        ]
        if tag == "img":
            self.images.append(attributes.get("alt"))


def test_report_writes_one_self_contained_page(evaluated, make_report, tmp_path):
    said = make_report(evaluated)
    page = tmp_path / "out/report/index.html"
    assert said[-1] == str(page)
    text = page.read_text()
    links = Links()
    links.feed(text)
    assert all(link.startswith(("data:", "#")) for link in links.found)
    assert "@import" not in text
    assert "url(" not in text
    assert links.images
    assert all(links.images)
    for method in ("zero_filled", "unrolled", "unrolled + image_same"):
        assert f">{method}" in text
    # 8 of 8 slices better: 2 / 2^8; two methods are tested
    assert 'title="uncorrected p = 0.008">p = 0.016<' in text
    assert "mrisem reconstruct data=brain mask=gaussian" in text
    assert "acceleration: 4" in text
    figures = {path.name.split("_")[0] for path in (page.parent / "figures").iterdir()}
    assert figures == {"panel", "dots", "loss"}
    assert r"\textbf" in (page.parent / "table.tex").read_text()
    assert (page.parent / "table.csv").read_text().startswith("group,method,metric,n,mean")


def test_report_of_a_folder_that_was_evaluated_as_a_whole(
    run_folders, compose, make_report, tmp_path
):
    run_folders.targets()
    for name, method in METHODS:
        run_folders.add(name, method)
    evaluate.run(compose("evaluate", f"output_dir={run_folders.runs}", *LIGHT))
    make_report([run_folders.runs], output="report")
    assert (tmp_path / "report/index.html").is_file()  # named report already: no second level
    assert len(list((tmp_path / "report/figures").glob("panel_*.png"))) == 2


def test_report_relabels_runs_of_one_method_evaluated_apart(
    run_folders, compose, make_report, tmp_path
):
    run_folders.targets()
    runs = [
        run_folders.add(str(i), "unrolled + image_same", overrides=[f"prior.weight=0.{i}"])
        for i in (1, 2)
    ]
    for run in runs:
        evaluate.run(compose("evaluate", f"output_dir={run}", *LIGHT))
    make_report(runs)
    text = (tmp_path / "out/report/index.html").read_text()
    assert "image_same [prior.weight=0.1]" in text
    assert "image_same [prior.weight=0.2]" in text


def test_report_without_targets_says_so_and_has_no_error_maps(
    evaluated, make_report, run_folders, tmp_path
):
    shutil.rmtree(run_folders.root / "data")
    make_report(evaluated)
    text = (tmp_path / "out/report/index.html").read_text()
    assert "The target file was not found" in text
    assert "absolute error of" not in text


def test_report_escapes_what_runs_recorded(evaluated, make_report, tmp_path):
    overrides = evaluated[0] / ".hydra/reconstruct/overrides.yaml"
    overrides.write_text("- note=<script>alert(1)</script>\n")
    make_report(evaluated[:1])
    assert "<script>alert" not in (tmp_path / "out/report/index.html").read_text()


def test_report_removes_figures_of_an_earlier_report(evaluated, make_report, tmp_path):
    make_report(evaluated[2:])
    folder = tmp_path / "out/report/figures"
    (folder / "mine.png").write_bytes(b"")
    make_report(evaluated[:1])
    assert not list(folder.glob("loss_*"))
    assert (folder / "mine.png").exists()


def test_report_of_a_run_that_was_not_evaluated_names_the_command(run_folders, make_report):
    run_folders.targets()
    run = run_folders.add("zf")
    with pytest.raises(InputError, match=f"mrisem evaluate output_dir={re.escape(str(run))}"):
        make_report([run])


def test_report_of_a_run_with_new_files_wants_it_evaluated_again(evaluated, make_report):
    folder = evaluated[0] / "reconstructions"
    shutil.copy(folder / "a.h5", folder / "new.h5")
    with pytest.raises(InputError, match="mrisem evaluate output_dir="):
        make_report(evaluated)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [(["runs=[]"], "got none"), (["runs=[/no/such]"], "must exist"), (["reference=x"], "one of")],
)
def test_report_refuses_bad_settings(evaluated, make_report, overrides, words):
    with pytest.raises(InputError, match=words):
        make_report(evaluated, *overrides)


PROBE = """<script>
const said = [];
const names = () => [...document.querySelectorAll("tbody th")].map(h => h.dataset.value).join("|");
const heads = [...document.querySelectorAll("th button")];
const psnr = heads.find(b => b.textContent.startsWith("PSNR"));
psnr.click(); said.push(names());
psnr.click(); said.push(names());
const view = document.querySelector(".view"), box = view.getBoundingClientRect();
view.dispatchEvent(new MouseEvent("click", {clientX: box.left + box.width / 4, clientY: box.top}));
const tiles = view.closest(".tiles");
said.push([...tiles.querySelectorAll("img")].map(i => getComputedStyle(i).transform[7]).join(""));
said.push(tiles.style.getPropertyValue("--x"));
tiles.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
said.push(tiles.style.getPropertyValue("--zoom"));
said.push(performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:")).length);
document.title = "said " + said.join(" ; ");
</script>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_report_sorts_and_zooms_in_a_browser(evaluated, make_report, tmp_path):
    make_report(evaluated)
    page = tmp_path / "out/report/index.html"
    page.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    flags += " --enable-logging=stderr --dump-dom"
    ran = subprocess.run(
        ["chromium", *flags.split(), f"--user-data-dir={tmp_path / 'c'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = re.search(r"<title>said (.*?)</title>", ran.stdout).group(1).split(" ; ")
    best_first = ["unrolled + image_same", "unrolled", "zero_filled"]
    assert said[0].split("|") == best_first
    assert said[1].split("|") == best_first[::-1]
    assert said[2] == "3" * 7  # target, three methods, three error maps: all zoomed at once
    assert float(said[3].removesuffix("%")) == pytest.approx(25, abs=0.5)
    assert said[4:] == ["1", "0"]  # zoom taken back; nothing was requested
    assert "CONSOLE" not in ran.stderr
