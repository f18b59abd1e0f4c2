"""What `mrisem evaluate` adds where there are lesions, curves of a prior, or runs to audit."""

import csv

import h5py
import numpy as np
import pytest

from mrisem.errors import InputError
from mrisem.metrics.lesions import score_lesions
from mrisem.verbs import evaluate

LIGHT = ["~metrics.haarpsi", "~metrics.vif", "~metrics.lpips"]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def score(compose):
    def scored(folder, *overrides):
        return evaluate.run(compose("evaluate", f"output_dir={folder}", *LIGHT, *overrides))

    return scored


@pytest.fixture
def pair(run_folders):
    """A run with a prior beside the same without, on targets of which one marks a lesion."""
    targets = run_folders.targets()
    with h5py.File(targets / "a.h5", "a") as file:
        file["reconstruction_rss"][1, 8:12, 8:12] += 1e-3
        labels = np.zeros((4, 24, 20), dtype=np.uint8)
        labels[1, 8:12, 8:12] = 3
        file["lesions"] = labels
    for name, method in (("1", "unrolled"), ("2", "unrolled + image_same")):
        run = run_folders.add(name, method)
    curves = [
        ("a.h5", 1, i, f"{side}_{level}", value * (i + 1) * level)
        for i in (0, 5)
        for side, value in (("positives", 0.1), ("negatives", -0.05))
        for level in (1, 3)
    ]
    with (run / "fit.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "slice", "iteration", "name", "value"), *curves])
    return run_folders


def test_evaluate_scores_marked_lesions(pair, score, read_json, capsys):
    score(pair.runs)
    rows = read(pair.runs / "metrics.csv")
    counts = [(row["file"], row["slice"], row["lesions"]) for row in rows if row["run"] == "1"]
    assert counts[:4] == [("a.h5", str(i), str(int(i == 1))) for i in range(4)]
    assert {count for file, _, count in counts if file == "b.h5"} == {""}  # nobody marked it
    with (
        h5py.File(pair.root / "data/brain/multicoil_val/a.h5") as t,
        h5py.File(pair.runs / "2/reconstructions/a.h5") as x,
    ):
        (expected,) = score_lesions(
            x["reconstruction"][1], t["reconstruction_rss"][1], t["lesions"][1]
        )
    row = next(r for r in rows if (r["file"], r["slice"], r["run"]) == ("a.h5", "1", "2"))
    assert float(row["lesion_contrast"]) == pytest.approx(expected.contrast)
    assert float(row["lesion_error"]) == pytest.approx(expected.error)
    lesions = read(pair.runs / "lesions.csv")
    assert [(r["method"], r["lesion"], r["pixels"]) for r in lesions] == [
        ("unrolled", "3", "16"),
        ("unrolled + image_same", "3", "16"),
    ]
    table = read_json(pair.runs / "summary.json")["lesions"][1]
    assert (table["reference"], table["n_lesions"]) == ("unrolled", 1)
    said = capsys.readouterr().out
    assert "lesions: brain, gaussian R=4" in said
    assert "lesion NMSE" in said


def test_evaluate_gives_the_final_similarity_to_the_bank(pair, score, read_json):
    score(pair.runs)
    rows = read(pair.runs / "metrics.csv")
    given = {
        (r["run"], r["file"], r["slice"]): (r["similarity_positives"], r["similarity_negatives"])
        for r in rows
    }
    positives, negatives = map(float, given.pop(("2", "a.h5", "1")))
    assert positives == pytest.approx(0.1 * 6 * (1 + 3) / 2)
    assert negatives == pytest.approx(-0.05 * 6 * (1 + 3) / 2)
    assert set(given.values()) == {("", "")}
    methods = read_json(pair.runs / "summary.json")["methods"]
    assert methods["unrolled + image_same"]["similarity_positives"]["n_slices"] == 1
    assert methods["unrolled"]["similarity_positives"]["n_slices"] == 0


def test_evaluate_audits_the_prior(pair, score, read_json, capsys):
    score(pair.runs)
    rows = read(pair.runs / "audit.csv")
    assert len(rows) == 8
    assert {(r["method"], r["without"]) for r in rows} == {("unrolled + image_same", "unrolled")}
    assert {(r["run"], r["without_run"]) for r in rows} == {("2", "1")}
    assert all(float(r["difference"]) > 0 for r in rows)
    assert {r["changed_measured"] for r in rows} == {""}  # these runs kept no complex images
    (entry,) = read_json(pair.runs / "summary.json")["audit"]
    assert entry["difference"]["n_slices"] == 8
    assert "prior against no prior: brain, gaussian R=4" in capsys.readouterr().out
    assert [p.name for p in (pair.runs / "figures").iterdir()] == [
        "audit_brain_gaussian_r_4_unrolled_image_same.png"
    ]
    score(pair.runs, "audit_slices=0")
    assert list((pair.runs / "figures").iterdir()) == []


def test_evaluate_says_what_it_cannot_audit_and_leaves_no_old_table(pair, score, capsys):
    score(pair.runs)
    (pair.runs / "1").rename(pair.root / "away")
    score(pair.runs)
    assert "not audited: unrolled + image_same" in capsys.readouterr().out
    assert not (pair.runs / "audit.csv").exists()
    assert list((pair.runs / "figures").iterdir()) == []


def test_evaluate_refuses_lesions_that_do_not_fit_the_target(pair, score):
    with h5py.File(pair.root / "data/brain/multicoil_val/b.h5", "a") as file:
        file["lesions"] = np.zeros((4, 24, 24), dtype=np.uint8)
    with pytest.raises(InputError, match="lesions must be uint8 of the target's shape"):
        score(pair.runs)
