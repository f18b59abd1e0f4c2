"""`mrisem evaluate` on tiny run folders, held against fastmri.evaluate."""

import csv
import math

import h5py
import numpy as np
import pytest
from fastmri import evaluate as official

from mrisem.errors import InputError
from mrisem.results.record import Record
from mrisem.verbs import evaluate
from mrisem.verbs.scores import load_scores


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def score(compose):
    def scored(folder, *overrides):
        # piq takes seconds to import and LPIPS needs weights: their own tests cover them.
        light = ["~metrics.haarpsi", "~metrics.vif", "~metrics.lpips", *overrides]
        return evaluate.run(compose("evaluate", f"output_dir={folder}", *light))

    return scored


def test_evaluate_composes_the_default_scores(compose):
    scores = load_scores(compose("evaluate").metrics)
    names = "psnr ssim nmse lpips dists tenengrad tenengrad_distance hfen haarpsi vif"
    assert list(scores) == names.split()
    assert scores["tenengrad_distance"].better == "lower"


def test_evaluate_writes_fastmris_numbers(run_folders, score, read_json):
    targets = run_folders.targets()
    run = run_folders.add("zf")
    assert score(run, f"data.root={targets.parent}") == 0
    for row in read(run / "volumes.csv"):
        with (
            h5py.File(targets / row["file"]) as t,
            h5py.File(run / "reconstructions" / row["file"]) as x,
        ):
            truth, image = t["reconstruction_rss"][()], x["reconstruction"][()]
        for name in ("psnr", "ssim", "nmse"):
            expected = float(np.squeeze(official.METRIC_FUNCS[name.upper()](truth, image)))
            assert float(row[name]) == pytest.approx(expected, rel=1e-6)
    rows = read(run / "metrics.csv")
    first = ["file", "subject", "slice", "method", "acceleration", "psnr", "ssim", "nmse"]
    assert list(rows[0])[:8] == first
    assert list(rows[0])[-1] == "failed"
    assert {row["subject"] for row in rows} == {"of a", "of b"}
    assert len(rows) == 8
    assert {row["run"] for row in rows} == {"."}
    assert {row["mask"] for row in rows} == {"gaussian R=4"}
    mean = np.mean([float(row["ssim"]) for row in rows])
    summary = read_json(run / "summary.json")
    assert summary["methods"]["zero_filled"]["ssim"]["mean"] == pytest.approx(mean)
    assert summary["methods"]["zero_filled"]["ssim"]["n_slices"] == 8
    assert summary["methods"]["zero_filled"]["ssim"]["n_subjects"] == 2
    assert summary["targets"] == {".": str(targets)}
    assert summary["paired_tests"] == []


def test_evaluate_compares_the_runs_of_a_folder(run_folders, score, read_json, capsys):
    run_folders.targets(files=[f"{name}.h5" for name in "abcdef"], n_slices=2)
    run_folders.targets("knee", ("k.h5",))
    for name, method in (("1", "zero_filled"), ("2", "unrolled"), ("3", "unrolled + image_same")):
        run_folders.add(name, method)
        run_folders.add(f"knee_{name}", method, "knee")
    assert score(run_folders.runs) == 0  # each run against its own recorded data.root
    summary = read_json(run_folders.runs / "summary.json")
    brain, knee = summary["groups"]
    tests = {(t["method"], t["metric"]): t for t in brain["paired_tests"]}
    assert tests["unrolled", "psnr"]["reference"] == "zero_filled"
    prior = tests["unrolled + image_same", "psnr"]
    assert prior["reference"] == "unrolled"
    assert (prior["n_subjects"], prior["n_slices"]) == (6, 12)
    assert prior["share_better"] == 1
    assert prior["p_value"] == pytest.approx(2 / 2**6)
    assert prior["p_holm"] == pytest.approx(2 * 2 / 2**6)  # two methods are tested
    assert summary["paired_tests"][0]["n_subjects"] == 7  # with the knee
    few = next(t for t in knee["paired_tests"] if t["metric"] == "psnr")
    assert few["p_value"] is None
    assert few["reason"] == "fewer than 6 subjects"
    said = capsys.readouterr().out
    assert "PSNR [dB] ↑" in said
    assert "knee, gaussian R=4" in said
    assert "no p-value where: fewer than 6 subjects" in said
    assert "p = 0.062" in said
    assert "p = 0.031" not in said  # uncorrected


def test_evaluate_counts_files_of_one_subject_once_and_warns_of_files_without(
    run_folders, score, read_json
):
    targets = run_folders.targets(files=("a.h5", "b.h5", "c.h5"))
    run = run_folders.add("zf")
    for name, subject in (("a", "x"), ("b", "x"), ("c", "c")):
        path = run / f"reconstructions/{name}.h5"
        with h5py.File(path) as file:
            image, text = file["reconstruction"][()], file.attrs["record"]
        run_folders.write(path, image, "zero_filled", record=Record.parse(text), subject=subject)
    with h5py.File(targets / "c.h5", "a") as target:
        del target.attrs["patient_id"]
    with pytest.warns(UserWarning, match=r"1 files have no patient_id, such as c\.h5"):
        score(run)
    summary = read_json(run / "summary.json")
    assert summary["methods"]["zero_filled"]["psnr"]["n_subjects"] == 2
    assert summary["files_without_patient_id"] == ["c.h5"]
    with h5py.File(path, "a") as file, h5py.File(targets / "c.h5", "a") as target:
        del file.attrs["scan"], file.attrs["record"]  # of another program: the target's subject
        target.attrs["patient_id"] = "x"
    score(run)
    assert {row["subject"] for row in read(run / "metrics.csv")} == {"x"}


def test_evaluate_tells_runs_of_one_method_apart_by_their_overrides(run_folders, score):
    run_folders.targets()
    run_folders.add("1", "unrolled + image_same", overrides=["prior.weight=0.1", "output_dir=x"])
    run_folders.add("2", "unrolled + image_same", overrides=["prior.weight=0.2", "output_dir=y"])
    score(run_folders.runs, "reference='unrolled + image_same [prior.weight=0.1]'")
    methods = {row["method"] for row in read(run_folders.runs / "metrics.csv")}
    assert methods == {f"unrolled + image_same [prior.weight=0.{i}]" for i in (1, 2)}


def test_evaluate_scores_the_slices_that_were_reconstructed(run_folders, score):
    targets = run_folders.targets(files=("a.h5",))
    run = run_folders.add("zf")
    with h5py.File(targets / "a.h5") as file:
        truth = file["reconstruction_rss"][[1, 3]]
    run_folders.write(run / "reconstructions/a.h5", truth, "zero_filled", slices=[1, 3])
    score(run)
    rows = read(run / "metrics.csv")
    assert [row["slice"] for row in rows] == ["1", "3"]
    assert all(math.isinf(float(row["psnr"])) for row in rows)


def test_evaluate_crops_to_the_width_as_fastmris_program_does(run_folders, score):
    targets = run_folders.targets(files=("a.h5",))
    run = run_folders.add("zf")
    score(run, "crop=width")
    with h5py.File(targets / "a.h5") as t, h5py.File(run / "reconstructions/a.h5") as x:
        pair = t["reconstruction_rss"][:, 2:22], x["reconstruction"][:, 2:22]
    psnr = float(read(run / "volumes.csv")[0]["psnr"])
    assert psnr == pytest.approx(float(official.psnr(*pair)), rel=1e-6)


def spoil_nan(folders, run):
    run_folders_image = np.full((4, 24, 20), np.nan)
    folders.write(run / "reconstructions/a.h5", run_folders_image, "zero_filled")


def spoil_shape(folders, run):
    folders.write(run / "reconstructions/a.h5", np.ones((4, 24, 24)), "zero_filled")


def spoil_slices(folders, run):
    folders.write(run / "reconstructions/a.h5", np.ones((1, 24, 20)), "zero_filled", slices=[9])


def spoil_truncated(folders, run):
    path = run / "reconstructions/a.h5"
    path.write_bytes(path.read_bytes()[:700])


def spoil_target(folders, run):
    (folders.root / "data/brain/multicoil_val/b.h5").unlink()


def spoil_target_dataset(folders, run):
    with h5py.File(folders.root / "data/brain/multicoil_val/b.h5", "a") as file:
        del file["reconstruction_rss"]


def spoil_everything(folders, run):
    for file in (run / "reconstructions").iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_nan, "must be finite, got 1920 NaN"),
        (spoil_shape, "target's shape"),
        (spoil_slices, r"0\.\.3, got 9"),
        (spoil_truncated, "complete HDF5 file"),
        (spoil_target, "needs a target file"),
        (spoil_target_dataset, "test files have none"),
        (spoil_everything, "mrisem reconstruct"),
    ],
)
def test_evaluate_says_what_is_wrong_in_one_line_and_writes_nothing(
    run_folders, score, spoil, words
):
    run_folders.targets()
    run = run_folders.add("zf")
    spoil(run_folders, run)
    with pytest.raises(InputError, match=words) as error:
        score(run)
    assert "\n" not in str(error.value)
    assert not (run / "metrics.csv").exists()
    assert not (run / "summary.json").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.root=/no/such", "no folder"),
        ("data.split=test", "multicoil_test"),
        ("reference=nosuch", "reference must be one of"),
        ("crop=half", "crop must be"),
        ("metrics.psnr=mrisem.metrics.fidelity.NOSUCH", "dotted path of a Score"),
        ("metrics.psnr=mrisem.metrics.fidelity.psnr", "must be the dotted path of a Score"),
    ],
)
def test_evaluate_refuses_bad_settings(run_folders, score, override, words):
    run_folders.targets()
    run = run_folders.add("zf")
    with pytest.raises(InputError, match=words):
        score(run, override)
