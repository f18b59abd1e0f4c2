"""Swept parameters: which runs a line joins, over which slices, and with what bars."""

import numpy as np
import pytest

from mrisem.report.figures import as_png
from mrisem.report.plots import sweep_curves
from mrisem.results.labels import label_runs
from mrisem.results.rows import Column
from mrisem.results.sweeps import Sweep, find_sampling_sweeps, find_sweeps, line_points

PSNR = Column("psnr", "PSNR [dB]", "higher", 2)
SAME = "unrolled + image_same"


@pytest.fixture
def swept(make_run):
    """Make a run whose prior has these defaults, with what its command line says."""

    def made(name, *words, method=SAME, **more):
        prior = {"weight": 0.02, "temperature": 0.07}
        return make_run(name, words, method, prior=prior, **more)

    return made


@pytest.fixture
def weighted(swept):
    return lambda *weights: [swept(f"w{w}", f"prior.weight={w}") for w in weights]


def rows_of(runs, slices=range(3), file="a.h5"):
    return [
        {"run": str(run.folder), "method": run.label, "file": file, "slice": i}
        | {
            "psnr": 30.0 + i + len(run.label) / 100,
            "anatomy": "brain",
            "mask": run.mask,
            "subject": "s",
        }
        for run in runs
        for i in slices
    ]


def sweeps_of(runs, *settings):
    runs = label_runs(runs)
    return find_sweeps(runs, rows_of(runs), *settings)


def test_find_sweeps_joins_runs_that_differ_in_one_parameter(swept, weighted):
    (sweep,) = sweeps_of([*weighted("0.2", "0.02", "0.002"), swept("un", method="unrolled")])
    assert (sweep.parameter, sweep.values, sweep.n) == ("prior.weight", ("0.002", "0.02", "0.2"), 3)
    assert list(sweep.lines) == [SAME]
    assert {v: len(rows) for v, rows in sweep.lines[SAME].items()} == dict.fromkeys(sweep.values, 3)
    assert sweep.axis == "log"
    assert list(sweep.references) == ["unrolled"]  # what paired tests compare with


def test_find_sweeps_takes_what_a_run_used_by_default(swept, weighted):
    default = swept("default")
    (sweep,) = sweeps_of([default, *weighted("0.05")])
    assert sweep.values == ("0.02", "0.05")
    assert sweep.axis == "linear"


def test_find_sweeps_makes_a_line_for_each_of_the_other_settings(swept):
    runs = [
        swept(f"{w}{t}", f"prior.weight={w}", f"prior.temperature={t}")
        for w in (0.1, 0.2)
        for t in (0.07, 0.5)
    ]
    temperature, weight = sweeps_of(runs)
    assert (temperature.parameter, weight.parameter) == ("prior.temperature", "prior.weight")
    assert list(temperature.lines) == [f"{SAME} [prior.weight={w}]" for w in (0.1, 0.2)]
    assert list(weight.lines) == [f"{SAME} [prior.temperature={t}]" for t in (0.07, 0.5)]
    drawn = {r["run"] for r in weight.lines[f"{SAME} [prior.temperature=0.5]"]["0.2"]}
    assert drawn == {"/runs/0.20.5"}


def test_find_sweeps_does_not_join_runs_that_differ_twice(swept):
    one = swept("1", "prior.weight=1", "prior.temperature=1")
    two = swept("2", "prior.weight=2", "prior.temperature=2")
    assert sweeps_of([one, two]) == []


def test_find_sweeps_keeps_only_slices_that_all_runs_of_a_sweep_have(swept, weighted):
    runs = label_runs([*weighted("1", "2"), swept("un", method="unrolled")])
    rows = rows_of(runs[:1], range(4)) + rows_of(runs[1:2], (1, 3)) + rows_of(runs[2:], (3,))
    (sweep,) = find_sweeps(runs, rows)
    assert sweep.n == 2
    assert {r["slice"] for rows in sweep.lines[SAME].values() for r in rows} == {1, 3}
    assert sweep.references == {}  # it lacks slice 1
    nothing = rows_of(runs[:1], (0,)) + rows_of(runs[1:2], (1,))
    (empty,) = find_sweeps(runs[:2], nothing)
    assert (empty.n, empty.lines) == (0, {})


def test_find_sampling_sweeps_compares_accelerations_and_patterns(make_run):
    runs = [
        make_run(f"{m}{p}{r}", method=m, mask=p, rate=r)
        for m in ("zero_filled", "unrolled")
        for p, r in (("gaussian", 4), ("gaussian", 10), ("random", 4))
    ]
    pattern, acceleration = find_sampling_sweeps(runs, rows_of(runs))
    assert (pattern.values, pattern.axis) == (("gaussian", "random"), "categories")
    assert (acceleration.parameter, acceleration.values) == ("mask.acceleration", ("4", "10"))
    assert list(acceleration.lines) == ["unrolled", "zero_filled"]
    other = make_run("other", ["mask.calibration_lines=9"], "zero_filled", rate=10)
    changed = [runs[0], other]  # also its calibration lines differ
    assert find_sampling_sweeps(changed, rows_of(changed)) == []


def scored(scores, n_files=6):
    """``scores``: value to one number a slice, two slices a file, a file a subject."""
    return {
        text: [
            {"file": f"{i % n_files}.h5", "slice": i, "psnr": x, "anatomy": "brain", "subject": ""}
            for i, x in enumerate(numbers)
        ]
        for text, numbers in scores.items()
    }


def test_line_points_are_means_with_the_spread_of_paired_differences():
    rng = np.random.default_rng(0)
    one, two = rng.normal(30, 5, 12), rng.normal(31, 5, 12)
    points = line_points(scored({"1": one, "2": two}), PSNR)
    assert points["1"]["mean"] == pytest.approx(one.mean())
    assert points["2"]["mean"] == pytest.approx(two.mean())
    # of two values each takes half of the variance of the differences
    expected = (two - one).std(ddof=1) / np.sqrt(2)
    assert [points[v]["std"] for v in "12"] == pytest.approx([expected] * 2)
    level = rng.normal(0, 50, 12)
    shifted = line_points(scored({"1": one + level, "2": two + level}), PSNR)
    assert shifted["1"]["std"] == pytest.approx(expected)
    assert points["1"]["low"] < one.mean() < points["1"]["high"]
    few = line_points(scored({"1": one, "2": two}, n_files=3), PSNR)
    assert few["1"]["low"] is None


def test_line_points_against_a_loop_of_the_published_formula():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(5, 3)) + rng.normal(size=(5, 1))  # slice, value
    found = line_points(scored({str(v): scores[:, v] for v in range(3)}), PSNR)
    for v in range(3):
        cousineau = [scores[s, v] - scores[s].mean() + scores.mean() for s in range(5)]
        variance = sum((x - np.mean(cousineau)) ** 2 for x in cousineau) / 4 * 3 / 2  # Morey
        assert found[str(v)]["std"] == pytest.approx(variance**0.5)


def test_line_points_leave_out_slices_without_a_score():
    nan = float("nan")
    points = line_points(scored({"1": [1.0, nan, 3.0], "2": [2.0, 9.0, 6.0]}), PSNR)
    assert [(p["mean"], p["n_slices"]) for p in points.values()] == [(2.0, 2), (4.0, 2)]
    assert line_points(scored({"1": [nan], "2": [1.0]}), PSNR) == {}


@pytest.mark.parametrize(
    ("values", "axis", "positions"),
    [
        (("0.002", "0.02", "0.2"), "log", [0.002, 0.02, 0.2]),
        (("1", "10"), "linear", [1, 10]),
        (("0", "0.1", "5"), "linear", [0, 0.1, 5]),
        (("0.1", "null"), "categories", [0, 1]),
        (("nan", "true"), "categories", [0, 1]),
    ],
)
def test_sweep_axis_follows_the_values(values, axis, positions):
    sweep = Sweep("p", values, {}, {}, 1)
    assert sweep.axis == axis
    assert list(sweep.positions.values()) == positions


def test_sweep_curves_draw_the_means_at_their_values():
    line = scored({"0.01": [1.0, 2.0], "0.1": [2.0, 4.0], "1": [3.0, 3.0]})
    against = [{"file": "0.h5", "slice": 0, "psnr": 1.0}, {"file": "0.h5", "slice": 1, "psnr": 2.0}]
    sweep = Sweep("prior.weight", tuple(line), {SAME: line}, {"unrolled": against}, 2)
    figure = sweep_curves(sweep, PSNR, sweep.points(PSNR))
    axes = figure.axes[0]
    drawn = axes.containers[0].lines[0].get_xydata()
    assert drawn == pytest.approx(np.array([[0.01, 1.5], [0.1, 3.0], [1.0, 3.0]]))
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.01", "0.1", "1"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["unrolled", SAME]
    (dashed,) = [x for x in axes.lines if x.get_linestyle() == "--"]
    assert set(dashed.get_ydata()) == {1.5}
    assert as_png(figure)
