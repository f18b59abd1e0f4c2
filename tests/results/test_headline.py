"""What the page says first: of what the runs are, what guided them, what came out."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from mrisem.results.headline import guide, headline, question, same_network, verdict
from mrisem.results.record import Record
from mrisem.results.rows import Column
from mrisem.results.run import Run
from mrisem.results.summary import summary_of

HAARPSI = Column("haarpsi", "HaarPSI", "higher", 3)
PSNR = Column("psnr", "PSNR [dB]", "higher", 2)
DISTS = Column("dists", "DISTS", "lower", 3, "vgg16")


@pytest.fixture
def make_run(tmp_path):
    def made(name, model="unrolled", simulation=None, **facts):
        folder = tmp_path / name
        folder.mkdir()
        with h5py.File(folder / "a.h5", "w") as file:
            if simulation is not None:
                file.attrs["simulation"] = simulation
        record = Record(model=model, anatomy="brain", mask="gaussian", acceleration=(4,), **facts)
        return Run(folder, (folder / "a.h5",), record, record.method)

    return made


def make_guided(make_run, name="guided", **encoder):
    settings = {"prior": {"encoder": {"network": "vgg16"} | encoder, "target": "positive"}}
    return make_run(name, prior="image_same", encoder="vgg16", settings=settings)


def rows_of(run, gains, n_slices=2):
    return [
        {"file": f"{s}.h5", "subject": f"s{s}", "slice": i, "method": run.label, "anatomy": "brain"}
        | {"mask": run.mask, "run": str(run.folder), "haarpsi": 0.8 + gain, "psnr": 30 + 10 * gain}
        for s, gain in enumerate(gains)
        for i in range(n_slices)
    ]


def said(*pairs):
    runs = [run for run, _ in pairs]
    rows = [row for run, gains in pairs for row in rows_of(run, gains)]
    columns = [PSNR, HAARPSI]
    return verdict(summary_of(rows, columns, runs)["groups"][0], rows, columns, runs)


def test_verdict_names_change_subjects_and_corrected_p(make_run):
    plain, guided = make_run("plain"), make_guided(make_run)
    gains = np.linspace(0.010, 0.012, 12)
    text = said((plain, np.zeros(12)), (guided, gains))
    assert text == (
        "With the prior (VGG16, trained on ImageNet), against the same method without it, "
        "HaarPSI rose by 0.011 (better in 12 of 12 subjects, p < 0.001, Holm) and "
        "PSNR rose by 0.11 dB (better in 12 of 12 subjects, p < 0.001, Holm)."
    )


def test_verdict_of_few_subjects_makes_no_test(make_run):
    plain, guided = make_run("plain"), make_guided(make_run)
    text = said((plain, np.zeros(2)), (guided, [0.02, 0.01]))
    assert text.endswith("(better in 2 of 2 subjects); 2 subjects: too few for a test.")
    assert "p =" not in text


def test_verdict_says_worse_and_no_difference(make_run):
    plain, guided = make_run("plain"), make_guided(make_run)
    worse = said((plain, np.zeros(8)), (guided, np.full(8, -0.02)))
    assert "HaarPSI fell by 0.020, which is worse (better in 0 of 8 subjects, p = 0.008" in worse
    alike = said((plain, np.zeros(8)), (guided, [0.01, -0.01] * 3 + [0.004, 0.004]))
    assert "no difference in HaarPSI was shown (+0.001, better in 5 of 8 subjects, p = " in alike


def test_verdict_of_a_change_below_the_last_digit_gives_its_bound(make_run):
    plain, guided = make_run("plain"), make_guided(make_run)
    text = said((plain, np.zeros(6)), (guided, np.full(6, 1e-4)))
    assert "HaarPSI changed by less than 0.001 (better in 6 of 6 subjects, p = 0.031, Holm)" in text


def test_verdict_compares_with_the_best_classical_method_without_a_test(make_run):
    plain, guided = make_run("plain"), make_guided(make_run)
    wavelet, tv = make_run("wavelet", "l1_wavelet"), make_run("tv", "tv")
    rest = ((plain, [0, 0]), (guided, [0.02, 0.02]))
    told = "the best classical method here (not tested), HaarPSI is"
    text = said((wavelet, [-0.1, -0.1]), (tv, [-0.2, -0.2]), *rest)
    assert f"Against l1_wavelet, {told} 0.120 higher (better in 2 of 2)" in text
    text = said((wavelet, [-0.1, -0.1]), (tv, [0.05, 0.05]), *rest)
    assert f"Against tv, {told} 0.030 lower (better in 0 of 2)" in text


def test_verdict_counts_many_settings_of_a_prior(make_run):
    plain = make_run("plain")
    guided = [replace(make_guided(make_run, str(i)), label=f"prior [{i}]") for i in range(3)]
    pairs = [(run, np.full(6, gain)) for run, gain in zip(guided, (0.01, 0.03, -0.01), strict=True)]
    text = said((plain, np.zeros(6)), *pairs)
    assert text.startswith("HaarPSI got better in 2 of 3 runs with a prior")
    assert "The largest gain: With the prior of prior [1] (VGG16" in text


def test_verdict_of_one_method_compares_nothing(make_run):
    assert said((make_run("plain"), [0.0])) == "One method alone: there is nothing to compare with."


@pytest.mark.parametrize(
    ("simulation", "words"),
    [
        (None, "not recorded whether measured or simulated"),
        ("", "taken for measured: the files name no simulation"),
        ("seed=0 size=96", "simulated (no scanner measured them)"),
        ("simulated from images: a.nii", "simulated from images (k-space computed from magnitude"),
    ],
)
def test_headline_says_where_scans_come_from_as_their_files_do(make_run, simulation, words):
    run = make_run("plain", simulation=simulation)
    facts = headline([run], rows_of(run, [0.0, 0.1]))
    assert facts["Data"].startswith(words)
    assert facts["Guided by"].startswith("no network")
    assert (facts["Scale"], facts["Sampling"]) == ("not recorded", "gaussian R=4")
    assert facts["Scored"] == "brain 2 subjects, 4 slices"


def test_headline_reads_the_recorded_scale(make_run):
    run = make_run("plain")
    config = run.folder / ".hydra/reconstruct/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("scale: {name: smoke}\n")
    assert headline([run], [])["Scale"].startswith("smoke (a trial of the software")


def test_guide_tells_controls_apart(make_run):
    assert guide(make_guided(make_run, random_seed=1)) == "VGG16 with random weights"
    settings = {"prior": {"target": "shuffled"}}
    shuffled = make_run("x", prior="image_same", encoder="other", settings=settings)
    assert guide(shuffled) == "other; a control: prior.target=shuffled"


def test_same_network_names_scores_of_the_network_that_guided(make_run):
    columns = [PSNR, DISTS]
    assert same_network([make_run("plain")], columns) == {}
    guided = make_guided(make_run)
    assert same_network([guided], columns) == {"VGG16": [DISTS]}
    assert same_network([make_guided(make_run, "random", random_seed=0)], columns) == {}


def test_question_names_what_guides(make_run):
    assert question([make_run("plain")]).startswith("How do these methods compare")
    assert question([make_guided(make_run)]) == (
        "Does guidance by VGG16 improve the reconstruction of undersampled brain MRI?"
    )
