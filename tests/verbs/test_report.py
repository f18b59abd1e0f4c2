"""`mrisem report` on tiny run folders."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest

from mrisem.errors import InputError
from mrisem.results.record import Record
from mrisem.verbs import evaluate, report

METHODS = (("1_zf", "zero_filled"), ("2_un", "unrolled"), ("3_prior", "unrolled + image_same"))
LIGHT = [f"~metrics.{name}" for name in ("haarpsi", "lpips", "nmse", "hfen", "tenengrad")]


@pytest.fixture
def evaluated(run_folders, compose):
    """Three runs of the brain, each evaluated by itself."""
    run_folders.targets(files=[f"{name}.h5" for name in "abcdef"], n_slices=2)
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
    # six of six subjects better: 2 / 2^6; two methods are tested
    assert "<small>p = 0.062<br>better in 6 of 6</small>" in text
    assert "mrisem reconstruct data=brain mask=gaussian" in text
    assert "acceleration: 4.0" in text
    figures = {path.name.split("_")[0] for path in (page.parent / "figures").iterdir()}
    assert figures == {"panel", "dots", "loss"}
    assert r"\textbf" in (page.parent / "table.tex").read_text()
    assert (
        (page.parent / "table.csv")
        .read_text()
        .startswith("group,method,metric,n_subjects,n_slices,")
    )


def test_report_imports_what_it_draws_with_and_no_more(evaluated, tmp_path):
    """Seconds of imports and half a minute of numba's compiler, for a page of two runs."""
    embeddings = evaluated[2] / "embeddings/a.h5"
    embeddings.mkdir(parents=True)
    bank = np.random.default_rng(0).normal(size=(8, 5)).astype("f4")
    kept = {"positives_1": bank, "negatives_1": -bank, "path_1": bank[:3], "zero_filled_1": bank[0]}
    np.savez(embeddings / "0.npz", iterations=np.arange(3), **kept)
    code = "import sys; from mrisem.verbs.application import run; run('report', sys.argv[1:], True)"
    code += "; print('modules', *sys.modules)"
    where = f"output_dir={tmp_path / 'out'}"
    listed = f"runs=[{','.join(map(str, evaluated))}]"
    command = [sys.executable, "-c", code, listed, where]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    packages = {name.split(".")[0] for name in done.stdout.rpartition("modules ")[2].split()}
    assert "matplotlib" in packages
    assert not packages & {"torch", "sklearn", "umap", "numba", "torchmetrics", "transformers"}
    assert list((tmp_path / "out/report/figures").glob("embedding_*.png"))


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
    text = (tmp_path / "report/index.html").read_text()
    assert "not recorded whether measured or simulated" in text
    assert "Does guidance by" in text


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
    path = evaluated[0] / "record.json"
    words = ("note=<script>alert(1)</script>",)
    Record.load(path).model_copy(update={"overrides": words}).save(path)
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
    [
        (["runs=[]"], "got none"),
        (["runs=[/no/such]"], "must exist"),
        (["reference=x"], "one of"),
        (["embedding=tsne"], "embedding must be 'pca' or 'umap'"),
        (["embedding=umap", "embedding_slices=0"], "got 0"),
    ],
)
def test_report_refuses_bad_settings(evaluated, make_report, overrides, words):
    with pytest.raises(InputError, match=words):
        make_report(evaluated, *overrides)


@pytest.fixture
def audited(run_folders, compose):
    """Two runs with a prior beside one without; a target marks a lesion. Evaluated as a whole."""
    targets = run_folders.targets()
    with h5py.File(targets / "a.h5", "a") as file:
        file["reconstruction_rss"][1, 8:12, 8:12] += 1e-3
        labels = np.zeros((4, 24, 20), dtype=np.uint8)
        labels[1, 8:12, 8:12] = 1
        file["lesions"] = labels
    for name, method, overrides in (
        ("1", "unrolled", ()),
        ("2", "unrolled + image_same", ["prior.weight=0.1"]),
        ("3", "unrolled + image_same", ["prior.weight=0.2"]),
    ):
        run_folders.add(name, method, overrides=overrides)
    evaluate.run(compose("evaluate", f"output_dir={run_folders.runs}", *LIGHT))
    return run_folders.runs


def test_report_shows_audit_lesions_and_sweeps(audited, make_report, read_json, tmp_path):
    make_report([audited])
    text = (tmp_path / "out/report/index.html").read_text()
    summary = read_json(audited / "summary.json")
    entry = summary["audit"][-1]
    assert entry["method"] == "unrolled + image_same [prior.weight=0.2]"
    assert f"<td>{100 * entry['difference']['mean']:.3g} %</td>" in text
    contrast = summary["lesions"][0]["contrast"]["mean"]
    assert f"<td>{contrast:.3f}</td>" in text
    assert "prior.weight=0.2] against unrolled</summary>" in text
    table = (tmp_path / "out/report/table.csv").read_text()
    for group in ("prior against no prior: brain, gaussian R=4", "lesions: brain, gaussian R=4"):
        assert f'"{group}",unrolled + image_same [prior.weight=0.2],' in table
        assert f"% {group}" in (tmp_path / "out/report/table.tex").read_text()
    figures = tmp_path / "out/report/figures"
    for drawn in (audited / "figures").glob("audit_*.png"):
        assert (figures / drawn.name).read_bytes() == drawn.read_bytes()
    assert (figures / "sweep_brain_gaussian_r_4_prior_weight_psnr.png").exists()
    assert not list(figures.glob("sweep_*seconds*"))


def test_report_of_one_run_of_an_audit_relabels_it(audited, make_report, tmp_path):
    (audited / "3/reconstructions").rename(audited / "3/away")
    make_report([audited])
    text = (tmp_path / "out/report/index.html").read_text()
    assert '<th scope="row">unrolled + image_same</th>' in text
    assert "prior.weight=0.1] against" not in text


def test_report_without_audit_has_no_empty_sections(evaluated, make_report, tmp_path):
    make_report(evaluated[:1])
    text = (tmp_path / "out/report/index.html").read_text()
    for heading in ("What the prior changed", "Lesions", "Swept parameters", "across samplings"):
        assert f"{heading}</h" not in text


def test_report_compares_samplings_of_an_anatomy(run_folders, compose, make_report, tmp_path):
    run_folders.targets()
    for rate in (4, 8):
        run_folders.add(f"R{rate}", "unrolled", rate=rate)
    evaluate.run(compose("evaluate", f"output_dir={run_folders.runs}", *LIGHT))
    make_report([run_folders.runs])
    assert "brain, across samplings</h2>" in (tmp_path / "out/report/index.html").read_text()
    name = "sweep_brain_across_samplings_mask_acceleration_psnr.png"
    assert (tmp_path / "out/report/figures" / name).exists()
