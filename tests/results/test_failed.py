"""Slices that failed: listed, and left out of every number."""

import csv
import json
import shutil

import h5py
import pytest

from mrisem.errors import InputError
from mrisem.results.rows import read_rows, read_table
from mrisem.results.runs import find_runs


def test_failed_slices_have_rows_without_numbers_and_are_in_the_summary(copy):
    with (copy / "metrics.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["run"] == "2"]
    assert [(r["file"], r["slice"], r["failed"]) for r in rows] == [
        ("a.h5", "0", ""),
        ("a.h5", "1", ""),
        ("a.h5", "7", "it diverged"),
        ("gone.h5", "", "it is cut short"),
    ]
    assert list(rows[0])[-1] == "failed"
    assert {rows[2][name] for name in ("psnr", "nmse", "acceleration", "seconds")} == {""}
    assert len(read_rows(copy / "metrics.csv")) == 4
    assert read_table(copy / "metrics.csv")[-1]["slice"] is None
    summary = json.loads((copy / "summary.json").read_text())
    assert summary["failed"][2:] == [
        {"file": "a.h5", "slices": [7], "message": "it diverged", "run": "2"},
        {"file": "gone.h5", "slices": [], "message": "it is cut short", "run": "2"},
    ]
    assert summary["methods"]["unrolled"]["psnr"]["n_slices"] == 2


def test_a_slice_whose_fit_was_given_up_has_scores_and_is_listed_once(copy, verbs):
    failure = {"file": "a.h5", "slices": [1], "message": "not finite"}
    with h5py.File(copy / "2/reconstructions/a.h5", "a") as file:
        file.attrs["failed"] = json.dumps([failure])
    (copy / "2/failed.json").write_text(json.dumps([failure]))
    verbs.evaluate(copy)
    rows = [row for row in read_table(copy / "metrics.csv") if row["run"] == "2"]
    assert [(r["slice"], r["failed"], r["psnr"] > 0) for r in rows] == [
        (0, "", True),
        (1, "not finite", True),
    ]
    summary = json.loads((copy / "summary.json").read_text())
    assert [entry for entry in summary["failed"] if entry["run"] == "2"] == [failure | {"run": "2"}]
    assert len(read_rows(copy / "metrics.csv")) == 4
    verbs.report(copy)
    assert "Failed: a.h5, slice 1: not finite" in (copy / "report/index.html").read_text()


def test_failed_slices_are_printed_and_on_the_page(copy, verbs, capsys):
    verbs.evaluate(copy)
    said = capsys.readouterr().out.splitlines()
    assert "failed: 2: a.h5, slices 7: it diverged" in said
    assert "failed: 2: gone.h5, the whole scan: it is cut short" in said
    verbs.report(copy)
    page = (copy / "report/index.html").read_text()
    assert page.count("Failed: a.h5, slice 7: it diverged") == 2
    assert page.count("Failed: gone.h5, the whole scan: it is cut short") == 2


def test_file_of_which_every_slice_failed_is_listed(copy, verbs):
    path = copy / "1/reconstructions/a.h5"
    with h5py.File(path, "a") as file:
        for name in list(file):
            empty = file[name][:0]
            del file[name]
            file[name] = empty
    verbs.evaluate(copy)
    verbs.report(copy)
    rows = [row for row in read_table(copy / "metrics.csv") if row["run"] == "1"]
    assert {row["failed"] for row in rows} == {"it diverged", "it is cut short"}


def test_run_of_which_every_scan_failed_is_listed(copy, verbs):
    shutil.rmtree(copy / "1/reconstructions")
    verbs.evaluate(copy)
    rows = [row for row in read_table(copy / "metrics.csv") if row["run"] == "1"]
    assert [row["file"] for row in rows] == ["gone.h5"]
    shutil.rmtree(copy / "2/reconstructions")
    verbs.evaluate(copy)
    assert not read_rows(copy / "metrics.csv")
    verbs.report(copy)


def test_a_failed_scan_has_a_name(copy):
    (copy / "2/failed.json").write_text('[{"slices": [1], "message": "x"}]')
    with pytest.raises(InputError, match="no file name"):
        find_runs([copy])


def test_files_without_records_are_scored_by_the_folders_name(copy, verbs, caplog):
    for run in (copy / "1", copy / "2"):
        (run / "record.json").unlink()
        with h5py.File(run / "reconstructions/a.h5", "a") as file:
            for name in ("record", "scan", "failed"):
                del file.attrs[name]
            del file["coarse_maps"]
    verbs.evaluate(copy)
    assert "called by its folder" in caplog.text
    rows = read_rows(copy / "metrics.csv")
    assert [(r["method"], r["file"], r["mask"]) for r in rows[::2]] == [
        ("1", "a.h5", "gaussian"),
        ("2", "a.h5", "gaussian"),
    ]


def test_record_of_the_files_stands_in_for_a_lost_one(copy):
    (copy / "2/record.json").unlink()
    labels = {run.label for run in find_runs([copy])}
    assert labels == {"unrolled", "unrolled + image_same"}


def test_another_runs_file_is_refused(copy, verbs):
    shutil.copy(copy / "1/reconstructions/a.h5", copy / "2/reconstructions/a.h5")
    with pytest.raises(InputError, match="must have its record"):
        verbs.evaluate(copy)


def test_input_files_of_other_suffixes_are_found_by_their_scan(copy, whole_run, verbs, tmp_path):
    data = tmp_path / "data" / "singlecoil_val"
    data.mkdir(parents=True)
    shutil.copy(whole_run / "data/brain/multicoil_val/a.h5", data / "a.H5")
    with h5py.File(data / "a.H5", "a") as file:
        file.move("reconstruction_rss", "reconstruction_esc")
    for run in (copy / "1", copy / "2"):
        with h5py.File(run / "reconstructions/a.h5", "a") as file:
            file.attrs["scan"] = json.dumps(json.loads(file.attrs["scan"]) | {"file": "a.H5"})
    before = [row["psnr"] for row in read_rows(copy / "metrics.csv")]
    verbs.evaluate(copy, f"data.root={tmp_path}/data")
    rows = read_rows(copy / "metrics.csv")
    assert {row["file"] for row in rows} == {"a.H5"}
    assert [row["psnr"] for row in rows] == before
    assert (
        json.loads((copy / "summary.json").read_text())["audit"][0]["difference"]["n_slices"] == 2
    )
    verbs.report(copy)
    assert "target file was not found" not in (copy / "report/index.html").read_text()
