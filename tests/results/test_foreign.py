"""What a stranger wrote into a run folder is text: it neither acts nor leads elsewhere."""

import csv
import json
import pickle
import shutil
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest
import yaml

from mrisem.errors import InputError
from mrisem.results.inside import escape_formula, inside, unescape_formula
from mrisem.results.reading import read_volume
from mrisem.results.record import Record
from mrisem.results.rows import as_csv, read_rows, read_table
from mrisem.results.runs import find_runs

HOSTILE = (
    "<img src=x onerror=window.hurt=1>",
    '"><script>window.hurt=1</script>',
    "</script><script>window.hurt=1</script>",
    "' onmouseover='window.hurt=1",
    "${oc.env:HOME}",
    "{{7*7}}{% for x in y %}",
    "$\\frac{",
)


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text += data


def elements(path):
    parser = Elements()
    parser.feed(path.read_text())
    return parser


def spoil_names(folder):
    """Write hostile text wherever a run says something."""
    for run in (folder / "1", folder / "2"):
        path = run / "record.json"
        record = Record.load(path)
        update = {"overrides": HOSTILE, "anatomy": HOSTILE[0], "mask": HOSTILE[1]}
        update["model"] = "".join(HOSTILE[:5]) if run.name == "2" else HOSTILE[6]
        update["settings"] = record.settings | {text: text for text in HOSTILE}
        record = record.model_copy(update=update)
        record.save(path)
        name = f"{HOSTILE[0]}.h5"
        source = run / "reconstructions/a.h5"
        with h5py.File(source, "a") as file:
            scan = json.loads(file.attrs["scan"]) | {"file": name, "subject": "=1+1"}
            file.attrs.update(scan=json.dumps(scan), record=record.model_dump_json())
            file.attrs["acquisition"] = HOSTILE[1]
            failures = [{"slices": [3], "message": text} for text in HOSTILE]
            file.attrs["failed"] = json.dumps(failures)
        source.rename(source.with_name(name))


def test_page_of_hostile_text_has_no_element_of_it(whole_run, copy, verbs, tmp_path):
    plain = elements(copy / "report/index.html")
    spoil_names(copy)
    targets = tmp_path / "data/multicoil_val"
    shutil.copytree(whole_run / "data/brain/multicoil_val", targets)
    (targets / "a.h5").rename(targets / f"{HOSTILE[0]}.h5")
    verbs.evaluate(copy, f"data.root={tmp_path}/data")
    title = HOSTILE[1].replace('"', '\\"')
    verbs.report(copy, f'title="{title}"')
    page = elements(copy / "report/index.html")
    assert page.tags.count("script") == plain.tags.count("script") == 1
    assert set(page.tags) <= set(plain.tags) | {"h4"}
    assert {*page.attributes} <= {*plain.attributes}
    for text in HOSTILE:
        assert text in page.text
    assert "=1+1" in {row["subject"] for row in read_table(copy / "metrics.csv")}
    with (copy / "metrics.csv").open(newline="") as stream:
        assert "'=1+1" in {row["subject"] for row in csv.DictReader(stream)}


def test_cells_that_a_spreadsheet_would_compute_are_marked_and_read_back(tmp_path):
    texts = ("=1+1", "+1", "-1", "@x", "\tx", "\rx", "'x", "x", "", "a,b\n")
    facts = {"slice": 0, "anatomy": "", "mask": "", "run": ".", "file": "-a.h5"}
    rows = [facts | {"method": text, "psnr": -1.5} for text in texts]
    path = tmp_path / "metrics.csv"
    path.write_text(as_csv(rows, [*rows[0]]), newline="")
    assert [row["method"] for row in read_rows(path)] == list(texts)
    with path.open(newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert not any(row["method"].startswith(("=", "+", "-", "@", "\t", "\r")) for row in cells)
    assert {row["psnr"] for row in cells} == {"-1.5"}
    assert all(unescape_formula(escape_formula(text)) == text for text in texts)


class Canary:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    "name",
    [
        *("2/embeddings/a.h5/0.npz", "2/reconstructions/a.h5", "2/fit.csv", "2/record.json"),
        *("2/failed.json", "2/.hydra/reconstruct/config.yaml", "metrics.csv", "audit.csv"),
        *("lesions.csv", "summary.json", "report/figures.json"),
    ],
)
def test_no_file_is_unpickled(copy, verbs, tmp_path, name):
    canary = tmp_path / "canary"
    path = copy / name
    if path.suffix == ".npz":
        with np.load(path) as file:
            arrays = dict(file)
        hurt = np.array([Canary(canary)], dtype=object)
        np.savez(path, **arrays | {"path_1": hurt})
    elif path.suffix == ".yaml":
        text = f"!!python/object/apply:builtins.open [{canary}, w]"
        path.write_text(f"data: {text}\n")
    else:
        path.write_bytes(pickle.dumps(Canary(canary)))
    for verb in (verbs.report, verbs.evaluate):
        try:
            verb(copy)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary))).close()  # the canary would have sung
    assert canary.exists()


def linked(path, where):
    kept = path.read_bytes()
    where.write_bytes(kept)
    path.unlink()
    path.symlink_to(where)


@pytest.mark.parametrize(
    "name", ["2/reconstructions/a.h5", "2/record.json", "2/failed.json", "2/fit.csv"]
)
def test_links_out_of_a_run_folder_are_refused(copy, verbs, tmp_path, name):
    linked(copy / name, tmp_path / "outside")
    with pytest.raises(InputError, match="must lie in it"):
        verbs.evaluate(copy)


@pytest.mark.parametrize("name", ["summary.json", "metrics.csv", "2/embeddings/a.h5/0.npz"])
def test_links_out_of_an_evaluated_folder_are_refused(copy, verbs, tmp_path, name):
    linked(copy / name, tmp_path / "outside")
    with pytest.raises(InputError, match="must lie in it"):
        verbs.report(copy)


def test_pictures_are_not_written_through_a_link(copy, verbs, tmp_path):
    shutil.rmtree(copy / "figures")
    (tmp_path / "elsewhere").mkdir()
    (copy / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="must lie in it"):
        verbs.evaluate(copy)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a/b.h5", "b.h5"])
def test_scan_of_another_place_or_name_is_refused(copy, name):
    path = copy / "2/reconstructions/a.h5"
    with h5py.File(path, "a") as file:
        file.attrs["scan"] = json.dumps(json.loads(file.attrs["scan"]) | {"file": name})
    with pytest.raises(InputError, match=r"have no folder|the name of its scan"):
        read_volume(path)


@pytest.mark.parametrize("kind", ["soft", "external", "storage", "virtual"])
def test_datasets_that_lie_elsewhere_are_refused(copy, tmp_path, kind):
    path = copy / "2/reconstructions/a.h5"
    with h5py.File(path, "a") as file:
        data = file["reconstruction"][()]
        del file["reconstruction"]
        if kind == "soft":
            file["reconstruction"] = h5py.SoftLink("/image")
        elif kind == "external":
            file["reconstruction"] = h5py.ExternalLink(str(tmp_path / "x.h5"), "/x")
        elif kind == "storage":
            outside = [(str(tmp_path / "raw"), 0, data.nbytes)]
            file.create_dataset("reconstruction", data.shape, "f4", external=outside)
        else:
            layout = h5py.VirtualLayout(data.shape, "f4")
            layout[...] = h5py.VirtualSource(str(tmp_path / "x.h5"), "x", shape=data.shape)
            file.create_virtual_dataset("reconstruction", layout)
    said = "must hold a dataset" if kind == "soft" else "must lie in"  # a dangling link is none
    with pytest.raises(InputError, match=said):
        read_volume(path)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_inside_refuses_names_that_lead_out(tmp_path, name):
    assert inside(tmp_path, "a/../b") == tmp_path / "a/../b"
    with pytest.raises(InputError, match="must lie in it"):
        inside(tmp_path, name)


@pytest.mark.parametrize("where", ["/etc", "multicoil_val", "/data/../etc/multicoil_val"])
def test_targets_of_a_summary_are_a_folder_of_a_split(copy, verbs, where):
    path = copy / "summary.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"targets": dict.fromkeys(told["targets"], where)}))
    with pytest.raises(InputError, match="path of a split's folder"):
        verbs.report(copy)


def test_run_without_a_prior_may_not_be_elsewhere(copy, verbs):
    path = copy / "audit.csv"
    path.write_text(path.read_text().replace(",2,1\n", ",2,../../etc\n"))
    with pytest.raises(InputError, match="must lie in it"):
        verbs.report(copy)


def test_interpolations_of_a_recorded_configuration_stay_text(copy, verbs):
    path = copy / "2/.hydra/reconstruct/config.yaml"
    path.write_text(yaml.safe_dump({"data": {"root": "${oc.env:HOME}", "split": "val"}}))
    run = next(run for run in find_runs([copy]) if run.folder.name == "2")
    assert run.data["root"] == "${oc.env:HOME}"
    with pytest.raises(InputError, match=r"no folder .*\$\{oc.env:HOME\}"):
        verbs.evaluate(copy)


def test_only_files_that_an_evaluation_or_a_report_made_are_removed(copy, verbs):
    mine = [copy / "figures/audit_mine.png", copy / "report/figures/panel_mine.png"]
    for path in mine:
        path.write_bytes(b"mine")
    path = copy / "summary.json"
    told = json.loads(path.read_text())
    assert {"lesions.csv", "audit.csv"} < {*told["files"]}
    told["files"] += ["../../precious", "1/record.json", "report/index.html"]
    path.write_text(json.dumps(told))
    drawn = {*(copy / "report/figures").iterdir()}
    shutil.rmtree(copy / "1")
    verbs.evaluate(copy)
    verbs.report(copy)
    assert all(path.read_bytes() == b"mine" for path in mine)
    assert (copy / "report/index.html").is_file()
    assert not (copy / "audit.csv").exists()
    assert {path.name for path in (copy / "figures").iterdir()} == {"audit_mine.png"}
    assert drawn - {*(copy / "report/figures").iterdir()}
