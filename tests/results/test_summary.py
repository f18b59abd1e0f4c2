"""Labels, references, tables: the parts of a report that are plain functions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mrisem.report.panels import choose_slices
from mrisem.report.runs import Run, label_runs
from mrisem.report.summary import Column, labels_of, paired_tests, reference_of, summary_of
from mrisem.report.tables import as_csv, as_latex, as_text, build_table

PSNR = Column("psnr", "PSNR [dB]", "higher", 2)
NMSE = Column("nmse", "NMSE", "lower", 3)


def make_rows(offsets, n=8, anatomy="brain", mask="gaussian R=4"):
    noise = np.random.default_rng(0).normal(size=n)
    return [
        {
            "file": f"f{i // 2}.h5",
            "slice": i % 2,
            "method": method,
            "psnr": 30 + noise[i] + offset,
            "nmse": 0.1 - 0.01 * offset,
            "acquisition": "AXT2",
            "anatomy": anatomy,
            "mask": mask,
        }
        for method, offset in offsets.items()
        for i in range(n)
    ]


def make_run(name, overrides, method="unrolled", files=("a.h5",), mask="gaussian R=4"):
    paths = tuple(Path(name, file) for file in files)
    return Run(Path("/runs") / name, paths, method, mask, {}, tuple(overrides), method)


def labels(*runs):
    return [run.label for run in label_runs(runs)]


def test_runs_of_one_method_on_other_files_or_masks_keep_its_name():
    assert (
        labels(
            make_run("1", ["prior.weight=1"]),
            make_run("2", ["prior.weight=2"], files=("b.h5",)),
            make_run("3", ["prior.weight=2"], mask="gaussian R=8"),
        )
        == ["unrolled"] * 3
    )


def test_runs_that_wrote_down_a_default_choice_keep_their_name():
    runs = [make_run("1", ["prior=none"]), make_run("2", ["seed=1"])]
    runs = [replace(run, config={"prior": {"name": "none"}}) for run in runs]
    assert labels(*runs) == ["unrolled", "unrolled [seed=1]"]


def make_configured(name, weight, overrides=()):
    run = make_run(name, overrides, method="unrolled + image_same")
    return replace(run, config={"prior": {"weight": weight}, "mask": {"center_fraction": 0.1}})


def test_runs_of_a_sweep_are_named_by_the_value_used_the_default_included():
    assert labels(
        make_configured("1", 0.1, ["prior.weight=1e-1"]),
        make_configured("2", 1.0),
    ) == ["unrolled + image_same [prior.weight=0.1]", "unrolled + image_same [prior.weight=1]"]


def test_runs_of_ablations_have_one_name_in_every_group():
    def ablated(name, mask, seed, weight, overrides):
        run = make_run(name, overrides, method="u + p", mask=mask)
        return replace(run, config={"prior": {"weight": weight}, "seed": seed})

    runs = [
        ablated("1", "R=4", 0, 1, []),
        ablated("2", "R=4", 0, 2, ["prior.weight=2"]),
        ablated("3", "R=8", 0, 1, []),
        ablated("4", "R=8", 0, 2, ["prior.weight=2"]),
        ablated("5", "R=8", 7, 1, ["seed=7", "prior.weight=1"]),
    ]
    weighted, seeded = "u + p [prior.weight=2]", "u + p [seed=7]"
    assert labels(*runs) == ["u + p", weighted, "u + p", weighted, seeded]


def test_a_default_written_out_is_no_difference():
    runs = [
        make_configured("1", 1, ["prior.weight=1", "seed=0"]),
        make_configured("2", 1.0, ["seed=1"]),
    ]
    assert labels(*runs) == [f"unrolled + image_same [seed={seed}]" for seed in (0, 1)]


def test_a_swept_setting_of_the_mask_names_the_runs_its_acceleration_does_not():
    assert labels(
        make_run("1", ["mask=gaussian", "mask.acceleration=4", "mask.center_fraction=0.04"]),
        make_run("2", ["mask.acceleration=4.0", "mask.center_fraction=0.08"]),
    ) == ["unrolled [mask.center_fraction=0.04]", "unrolled [mask.center_fraction=0.08]"]


def test_every_variant_of_a_sweep_is_tested_against_the_method_without_prior():
    variants = [f"unrolled + image_same [prior.weight={w}]" for w in (0.1, 2, 10)]
    rows = make_rows({"zero_filled": -1, "unrolled": 0} | dict.fromkeys(variants, 1))
    group = summary_of(rows, [PSNR])["groups"][0]
    assert list(group["methods"]) == ["zero_filled", "unrolled", *variants]
    found = {test["method"]: test["reference"] for test in group["paired_tests"]}
    assert {found[label] for label in variants} == {"unrolled"}


def test_a_variant_is_tested_against_the_variant_with_its_other_settings():
    seeds = ["unrolled [seed=0]", "unrolled [seed=1]"]
    guided = [f"unrolled + image_same [prior.weight=2, seed={seed}]" for seed in (0, 1)]
    assert [reference_of(label, [*seeds, *guided]) for label in guided] == seeds


def test_runs_of_one_method_are_named_by_what_differs_only():
    assert labels(
        make_run("1", ["seed=0", "prior.weight=1", "output_dir=x"]),
        make_run("2", ["seed=0", "prior.weight=2", "output_dir=y"]),
        make_run("3", ["seed=0"]),
    ) == ["unrolled [prior.weight=1]", "unrolled [prior.weight=2]", "unrolled"]


def test_runs_that_no_setting_tells_apart_are_named_by_folder():
    assert labels(make_run("1", []), make_run("2", [])) == [
        "unrolled [runs/1]",
        "unrolled [runs/2]",
    ]


def test_reference_is_the_method_without_prior_then_zero_filled_then_the_first():
    names = ["zero_filled", "tv", "unrolled", "unrolled + image_same [seed=1]"]
    assert [reference_of(name, names) for name in names] == [
        None,
        "zero_filled",
        "zero_filled",
        "unrolled",
    ]
    assert reference_of("inr + image_same", ["tv", "inr + image_same"]) == "tv"
    variants = ["unrolled [mask.calibration_lines=12]", "unrolled", "unrolled + image_same"]
    assert reference_of("unrolled + image_same", variants) == "unrolled"
    assert reference_of("unrolled", names, wanted="tv") == "tv"
    assert reference_of("tv", names, wanted="tv") is None


def test_paired_tests_pair_by_slice_whatever_the_order_of_rows():
    rows = make_rows({"zero_filled": 0, "unrolled": 1})
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    tests = paired_tests(shuffled, [PSNR])
    assert tests == paired_tests(rows, [PSNR])
    assert tests[0]["mean_difference"] == pytest.approx(1)
    assert tests[0]["p_value"] == pytest.approx(2 / 2**8)


def test_paired_tests_are_corrected_over_the_methods_of_one_metric():
    rows = make_rows({"zero_filled": 0, "tv": 1, "unrolled": 2, "unrolled + image_same": 2})
    tests = {(t["method"], t["metric"]): t for t in paired_tests(rows, [PSNR, NMSE])}
    for metric in ("psnr", "nmse"):
        for method in ("tv", "unrolled"):
            p = tests[method, metric]["p_value"]
            assert tests[method, metric]["p_holm"] == pytest.approx(2 * p)
        assert tests["unrolled + image_same", metric]["p_holm"] is None  # all differences are zero


def test_summary_intervals_resample_files_not_slices():
    rows = make_rows({"zero_filled": 0}, n=40)
    for row in rows:
        row["psnr"] = float(row["file"][1:-3])  # slices of a file are copies of each other
    summary = summary_of(rows, [PSNR])["groups"][0]["methods"]["zero_filled"]["psnr"]
    width = summary["high"] - summary["low"]
    assert width == pytest.approx(2 * 1.96 * np.std(np.arange(20)) / np.sqrt(20), rel=0.1)


def test_summary_keeps_what_may_not_be_compared_apart():
    rows = make_rows({"zero_filled": 0, "unrolled": 1})
    rows += make_rows({"zero_filled": 5, "unrolled": 9}, n=2, mask="gaussian R=2")
    summary = summary_of(rows, [PSNR])
    assert [group["mask"] for group in summary["groups"]] == ["gaussian R=2", "gaussian R=4"]
    assert summary["paired_tests"][0]["n"] == 10
    assert summary["groups"][0]["paired_tests"][0]["mean_difference"] == pytest.approx(4)


def test_table_marks_the_best_by_direction_and_renders():
    rows = make_rows({"zero_filled": 0, "unrolled": 1})
    empty = Column("lpips", "LPIPS", "lower", 3)
    table = build_table(summary_of(rows, [PSNR, NMSE, empty])["groups"][0], [PSNR, NMSE, empty])
    assert [column.name for column in table.columns] == ["psnr", "nmse"]
    assert [[cell.best for cell in row.cells] for row in table.rows] == [[False] * 2, [True] * 2]
    text = as_text(table).splitlines()
    assert text[1].split() == ["method", "n", "PSNR", "[dB]", "↑", "NMSE", "↓"]
    assert text[3].count("*") == 2
    latex = as_latex([table])
    assert r"zero\_filled & 8" in latex
    assert latex.count(r"\textbf{") == 2
    lines = as_csv([table]).splitlines()
    assert len(lines) == 5
    assert lines[0].endswith(",p_holm,low,high")
    cell = table.rows[1].cells[0]
    low, mean, high = (cell.summary[key] for key in ("low", "mean", "high"))
    assert low < mean < high
    assert cell.interval == f"[{low:.2f}, {high:.2f}]"
    assert lines[3].startswith('"brain, gaussian R=4",unrolled,psnr,8,')


def test_table_marks_no_best_among_equals():
    rows = make_rows({"zero_filled": 0, "unrolled": 0})
    table = build_table(summary_of(rows, [PSNR])["groups"][0], [PSNR])
    assert not any(cell.best for row in table.rows for cell in row.cells)


def test_choose_slices_takes_middle_slices_that_all_methods_have():
    rows = make_rows({"zero_filled": 0, "unrolled": 1})
    rows = [r for r in rows if not (r["method"] == "unrolled" and r["file"] != "f1.h5")]
    assert choose_slices(rows) == [("f1.h5", 1)]
    assert labels_of(rows) == ["zero_filled", "unrolled"]
