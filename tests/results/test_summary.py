"""Means, tests and tables of rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mrisem.report.panels import choose_slices
from mrisem.results.rows import Column, labels_of
from mrisem.results.summary import paired_tests, summary_of
from mrisem.results.tables import as_csv, as_latex, as_text, build_table

PSNR = Column("psnr", "PSNR [dB]", "higher", 2)
NMSE = Column("nmse", "NMSE", "lower", 3)


def make_rows(offsets, n=16, anatomy="brain", mask="gaussian R=4"):
    """Two slices a file, a file a subject."""
    noise = np.random.default_rng(0).normal(size=n)
    return [
        {
            "file": f"f{i // 2}.h5",
            "subject": f"s{i // 2}",
            "slice": i % 2,
            "method": method,
            "psnr": 30 + noise[i] + offset,
            "nmse": 0.1 - 0.01 * offset,
            "acquisition": "AXT2",
            "anatomy": anatomy,
            "mask": mask,
            "run": f"/runs/{place}",
        }
        for place, (method, offset) in enumerate(offsets.items())
        for i in range(n)
    ]


def summarised(labelled, offsets, columns=(PSNR,)):
    return summary_of(make_rows(offsets), columns, labelled(*offsets))


def test_every_variant_of_a_sweep_is_tested_against_the_method_without_prior(labelled):
    variants = [f"unrolled + image_same [prior.weight={w}]" for w in (0.1, 2, 10)]
    offsets = {"zero_filled": -1, "unrolled": 0} | dict.fromkeys(variants, 1)
    group = summarised(labelled, offsets)["groups"][0]
    assert list(group["methods"]) == ["zero_filled", "unrolled", *variants]
    found = {test["method"]: test["reference"] for test in group["paired_tests"]}
    assert {found[label] for label in variants} == {"unrolled"}


def test_paired_tests_pair_by_slice_whatever_the_order_of_rows():
    rows = make_rows({"zero_filled": 0, "unrolled": 1})
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    against = {"unrolled": "zero_filled"}
    tests = paired_tests(shuffled, [PSNR], against)
    assert tests == paired_tests(rows, [PSNR], against)
    assert tests[0]["mean_difference"] == pytest.approx(1)
    assert tests[0]["p_value"] == pytest.approx(2 / 2**8)
    assert (tests[0]["n_subjects"], tests[0]["n_slices"]) == (8, 16)


def test_paired_tests_take_all_files_of_a_subject_as_one():
    rows = make_rows({"zero_filled": 0, "unrolled": 1})
    for row in rows:  # eight files of four subjects
        row["subject"] = row["subject"].translate(str.maketrans("4567", "0123"))
    (test,) = paired_tests(rows, [PSNR], {"unrolled": "zero_filled"})
    assert (test["n_subjects"], test["n_slices"]) == (4, 16)
    assert test["reason"] == "fewer than 6 subjects"
    for row in rows:
        row["subject"] = ""  # each file is of a subject of its own
    (test,) = paired_tests(rows, [PSNR], {"unrolled": "zero_filled"})
    assert (test["n_subjects"], test["p_value"]) == (8, 2 / 2**8)


def test_pooled_tests_average_a_subject_over_samplings_and_keep_anatomies_apart():
    methods = {"zero_filled": 0, "unrolled": 1}
    rows = [
        row
        for anatomy, mask in (("brain", "R=4"), ("brain", "R=8"), ("knee", "R=4"))
        for row in make_rows(methods, anatomy=anatomy, mask=mask)
    ]
    for row in rows:
        if row["mask"] == "R=8" and row["method"] == "unrolled":
            row["psnr"] += 2
    (test,) = paired_tests(rows, [PSNR], {"unrolled": "zero_filled"})
    assert (test["n_subjects"], test["n_slices"]) == (16, 48)  # eight brains and eight knees
    assert test["mean_difference"] == pytest.approx((8 * (1 + 3) / 2 + 8 * 1) / 16)


def test_paired_tests_are_corrected_over_the_methods_of_one_metric():
    rows = make_rows({"zero_filled": 0, "tv": 1, "unrolled": 2, "unrolled + image_same": 2})
    against = dict.fromkeys(("tv", "unrolled"), "zero_filled") | {
        "unrolled + image_same": "unrolled"
    }
    tests = {(t["method"], t["metric"]): t for t in paired_tests(rows, [PSNR, NMSE], against)}
    for metric in ("psnr", "nmse"):
        for method in ("tv", "unrolled"):
            p = tests[method, metric]["p_value"]
            assert tests[method, metric]["p_holm"] == pytest.approx(2 * p)
        assert tests["unrolled + image_same", metric]["p_holm"] is None  # no difference


def test_summary_intervals_resample_subjects_not_slices(labelled):
    rows = make_rows({"zero_filled": 0}, n=40)
    for row in rows:
        row["psnr"] = float(row["file"][1:-3])  # slices of a subject are copies of each other
    summary = summary_of(rows, [PSNR], labelled("zero_filled"))["groups"][0]["methods"][
        "zero_filled"
    ]["psnr"]
    width = summary["high"] - summary["low"]
    assert width == pytest.approx(2 * 1.96 * np.std(np.arange(20)) / np.sqrt(20), rel=0.1)


def test_summary_keeps_what_may_not_be_compared_apart(labelled):
    rows = make_rows({"zero_filled": 0, "unrolled": 1})
    others = make_rows({"zero_filled": 5, "unrolled": 9}, n=2, mask="gaussian R=2")
    rows += [row | {"run": f"{row['run']}b"} for row in others]
    runs = labelled("zero_filled", "unrolled")
    others = labelled("zero_filled", "unrolled", rate=2)
    runs += [replace(run, folder=Path(f"{run.folder}b")) for run in others]
    summary = summary_of(rows, [PSNR], runs)
    assert [group["mask"] for group in summary["groups"]] == ["gaussian R=2", "gaussian R=4"]
    pooled = summary["paired_tests"][0]
    assert (pooled["n_subjects"], pooled["n_slices"]) == (8, 18)  # one was sampled twice
    assert summary["groups"][0]["paired_tests"][0]["mean_difference"] == pytest.approx(4)


def test_table_marks_the_best_by_direction_and_renders(labelled):
    empty = Column("lpips", "LPIPS", "lower", 3)
    summary = summarised(labelled, {"zero_filled": 0, "unrolled": 1}, [PSNR, NMSE, empty])
    table = build_table(summary["groups"][0], [PSNR, NMSE, empty])
    assert [column.name for column in table.columns] == ["psnr", "nmse"]
    assert [[cell.best for cell in row.cells] for row in table.rows] == [[False] * 2, [True] * 2]
    text = as_text(table).splitlines()
    headings = ["method", "subjects", "slices", "PSNR", "[dB]", "↑", "NMSE", "↓"]
    assert text[1].split() == headings
    assert text[3].split()[:3] == ["unrolled", "8", "16"]
    assert text[3].count("*") == 2
    assert text[4].split() == ["against", "zero_filled", *["p", "=", "0.008"] * 2]
    assert len(text) == 5
    latex = as_latex([table])
    assert r"zero\_filled & 8 & 16" in latex
    assert latex.count(r"\textbf{") == 2
    lines = as_csv([table]).splitlines()
    assert len(lines) == 5
    assert lines[0].endswith(",p_holm,low,high")
    cell = table.rows[1].cells[0]
    low, mean, high = (cell.summary[key] for key in ("low", "mean", "high"))
    assert low < mean < high
    assert cell.interval == f"[{low:.2f}, {high:.2f}]"
    assert lines[3].startswith('"brain, gaussian R=4",unrolled,psnr,8,16,,')


def test_table_says_why_it_has_no_p_values(labelled):
    rows = make_rows({"zero_filled": 0, "unrolled": 1}, n=10)
    group = summary_of(rows, [PSNR], labelled("zero_filled", "unrolled"))["groups"][0]
    text = as_text(build_table(group, [PSNR])).splitlines()
    assert text[-1] == "no p-value where: fewer than 6 subjects"
    assert len(text) == 5


def test_table_marks_no_best_among_equals(labelled):
    summary = summarised(labelled, {"zero_filled": 0, "unrolled": 0})
    table = build_table(summary["groups"][0], [PSNR])
    assert not any(cell.best for row in table.rows for cell in row.cells)


def test_choose_slices_takes_middle_slices_that_all_methods_have():
    rows = make_rows({"zero_filled": 0, "unrolled": 1})
    rows = [r for r in rows if not (r["method"] == "unrolled" and r["file"] != "f1.h5")]
    assert choose_slices(rows) == [("f1.h5", 1)]
    assert labels_of(rows) == ["zero_filled", "unrolled"]


def test_latex_escapes_every_special_character(labelled):
    column = Column("psnr", "a\\b^c~d<e>f\ng", "higher", 2)
    table = build_table(summarised(labelled, {"tv": 0}, [column])["groups"][0], [column])
    latex = as_latex([table])
    escaped = r"a\textbackslash{}b\textasciicircum{}c\textasciitilde{}d"
    assert escaped + r"\textless{}e\textgreater{}f g" in latex
