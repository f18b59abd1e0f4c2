"""Every question's sweep composes at every scale, and results become tables."""

import doctest
import importlib.util
import json
import sys
import warnings
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from mrisem.config.compose import compose
from mrisem.prior.contrastive import info_nce
from mrisem.results.record import Record

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
QUESTIONS = sorted(file.parent.name for file in EXPERIMENTS.glob("*/sweep.yaml"))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run():
    return load(EXPERIMENTS / "run.py")


@pytest.fixture
def tables(run):
    return load(EXPERIMENTS / "tables.py")


_COMPARED = ("unrolled.Unrolled", "unrolled_vit.UnrolledViT")  # by foundation_backbone


@cache
def composed(verb, job):
    """Compose a job, once: questions share jobs."""
    with warnings.catch_warnings():  # a sweep names the encoder beside prior=none, too
        warnings.filterwarnings("ignore", message=".* has no effect with ")
        return compose(verb, [*sorted(job), "output_dir=x"])


def with_every_word(jobs):
    """Leave out the jobs all of whose words are in jobs before them."""
    seen, kept = set(), []
    for job in jobs:
        if not job <= seen:
            seen |= job
            kept.append(job)
    return kept


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_sweep_every_word_composes_and_a_reference_is_among_them(run, monkeypatch, question, scale):
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.setenv("IMAGES", "/images")
    sweep = run.load_sweep(question, scale, Path("/out"))
    jobs = with_every_word(job for one in sweep.reconstruct for job in run.jobs_of(one))
    configs = [composed("reconstruct", job) for job in jobs]
    assert {config.data.name for config in configs} in ({"brain", "knee"}, {"brain"})
    for config in configs:
        assert config.data.root.startswith(("/data/", "/images/"))
        assert Path(config.data.root).name == config.data.name
    priors = {config.prior.name for config in configs}
    if question == "foundation_backbone":  # compares networks, none of them with a prior
        assert priors == {"none"}
        networks = {OmegaConf.select(config, "model.task.network._target_") for config in configs}
        assert {f"mrisem.networks.{name}" for name in _COMPARED} <= networks
    else:
        assert {"none"} < priors
    assert all(config.scale is not None for config in configs)
    for one in sweep.train:
        for job in run.jobs_of(one):
            composed("train", job)
    if sweep.simulate is not None:
        composed("simulate", frozenset(sweep.simulate))


@pytest.mark.parametrize("question", QUESTIONS)
def test_sweep_has_a_target_a_claim_and_a_page_with_a_place_for_its_result(question):
    makefile = (ROOT / "Makefile").read_text()
    listed = makefile.split("QUESTIONS :=")[1].split("\n\n")[0].replace("\\", "").split()
    assert question.replace("_", "-") in listed
    assert yaml.safe_load((EXPERIMENTS / question / "sweep.yaml").read_text())["claim"]
    page = (EXPERIMENTS / question / "README.md").read_text()
    assert "<!-- result -->" in page
    assert "**Expected.**" in page or "Expected" in page
    assert f"make {question.replace('_', '-')}" in page


def test_sweep_unknown_question_is_refused(run):
    with pytest.raises(SystemExit, match="QUESTION must be one of"):
        run.load_sweep("nothing", "demo", Path())


def test_sweep_checkpoint_of_a_warm_start_is_where_training_puts_it(run):
    sweep = run.load_sweep("main_table", "demo", Path("/out"))
    jobs = [job for one in sweep.reconstruct for job in run.jobs_of(one) if "model=unet" in job]
    found = {composed("reconstruct", job).model.checkpoint for job in jobs}
    expected = "/out/warm_start/{}/unet/checkpoints/last.ckpt"
    assert found == {expected.format(name) for name in ("brain", "knee")}


def test_sweep_shares_its_data_unless_it_simulates_its_own(run, monkeypatch):
    monkeypatch.delenv("DATA", raising=False)
    monkeypatch.setenv("IMAGES", "/images")
    found = {q: run.load_sweep(q, "demo", Path("/e") / q).data for q in QUESTIONS}
    for question in ("abnormalities", "foundation_backbone", "generative", "what_guides"):
        assert found.pop(question) == Path("/e") / question / "data"
    assert set(found.values()) == {Path("/e/data")}


def test_jobs_are_those_that_hydra_makes(run):
    (job,) = run.jobs_of(["a=1", "b=[1,2]", "c={x: 1, y: 2}", "hydra.launcher.n_jobs=2"])
    assert job == {"a=1", "b=[1,2]", "c={x: 1, y: 2}"}
    assert len(run.jobs_of(["a=1,2", "b=x,y,z"])) == 6


def test_the_question_of_the_umap_picture_asks_for_it(run, tmp_path):
    assert run.load_sweep("embedding_umap", "demo", tmp_path).report == ["embedding=umap"]
    assert run.load_sweep("temperature", "demo", tmp_path).report == []


def test_borrow_takes_the_same_runs_of_answered_questions_only(run, tmp_path):
    def make(question, name, overrides, answered):
        record = tmp_path / question / "runs" / name / ".hydra" / "reconstruct"
        record.mkdir(parents=True)
        (record / "overrides.yaml").write_text(yaml.safe_dump([*overrides, "output_dir=z"]))
        if answered:
            (tmp_path / question / "result.json").touch()

    make("one", "same", ["b=2", "a=1"], answered=True)
    make("one", "escaped", ["a=1", "c=d/$\\{data.name\\}"], answered=True)
    make("one", "other", ["a=1", "b=3"], answered=True)
    make("two", "unfinished", ["a=1", "b=4"], answered=False)
    sweeps = [["a=1", "b=2,4", "hydra/launcher=joblib"], ["a=1", "c=d/${data.name}"]]
    sweep = run.Sweep(tmp_path, None, [], sweeps, [], [], None)
    run.borrow(sweep, tmp_path / "mine", [])
    borrowed = {path.name for path in (tmp_path / "mine" / "runs").iterdir()}
    assert borrowed == {"same", "escaped"}
    run.borrow(sweep, tmp_path / "mine", ["a=2"])  # nothing else, and no harm when there already


def result(difference, own=None, groups=(("brain", "gaussian R=4"),)):
    column = {"label": "HaarPSI", "better": "higher", "digits": 3}
    row = {"mean": 0.5, "std": 0.1, "n_subjects": 7, "n_slices": 21, "low": 0.4, "high": 0.6}
    test = {
        "metric": "haarpsi",
        "method": "unrolled + image_same",
        "reference": "unrolled",
        "n_subjects": 7,
        "n_slices": 21,
        "mean_difference": difference,
        "p_value": 0.015625,
        "p_holm": 0.03125,
        "share_better": 1.0,
    }
    facts = {
        "question": "temperature",
        "commit": "abc",
        "seconds": 120,
        "fit_seconds": 180,
        "columns": {"haarpsi": column, "psnr": column | {"label": "PSNR", "digits": 1}},
    }
    scores = {
        "methods": {"unrolled + image_same": {"haarpsi": row, "psnr": row, "hfen": row}},
        "paired_tests": [test, test | {"metric": "hfen"}],
    }
    named = [{"anatomy": anatomy, "mask": mask} | scores for anatomy, mask in groups]
    return facts | scores | {"groups": named} | ({} if own is None else {"own": own})


def test_tables_show_means_changes_and_the_questions_own(tables):
    kept = tables.keep(result(0.0123, own=[{"sigma": 0.1, "at": {"start": 3}}]))
    text = tables.section(json.loads(json.dumps(kept)))
    assert "commit abc, 2 min; its fits took 3 min of one process." in text
    assert "| method | PSNR | HaarPSI | subjects | slices |" in text
    assert "| unrolled + image_same | 0.5 | 0.500 | 7 | 21 |" in text
    assert "+0.0123 (p = 0.031)" in text
    assert "0.016" not in text  # not corrected
    assert "**brain, gaussian R=4**" in text
    assert "all together" not in text
    assert "| sigma | at: start |" in text
    assert "| 0.1 | 3 |" in text
    assert "hfen" not in text
    said = tables.outcome("temperature", kept)
    line = "unrolled + image_same: +0.0123 (p = 0.031)"
    assert said == f"Change of HaarPSI: brain, gaussian R=4<br>{line}"


def test_tables_of_several_groups_stand_before_that_of_all_together(tables):
    groups = [("brain", "gaussian R=4"), ("knee", "gaussian R=4")]
    kept = tables.keep(result(0.01, groups=groups))
    assert list(kept["tables"]) == [*map(", ".join, groups), "all together"]
    header, line = tables.outcome("temperature", kept).split("<br>")
    assert header.endswith(": brain, gaussian R=4 / knee, gaussian R=4 (p: all together)")
    assert line == "unrolled + image_same: +0.0100 / +0.0100 (p = 0.031)"


def test_tables_say_why_there_is_no_p_value(tables):
    facts = result(0.01)
    for test in facts["groups"][0]["paired_tests"]:
        test |= {"p_value": None, "p_holm": None, "reason": "fewer than 6 subjects"}
    assert "+0.0100 (fewer than 6 subjects)" in tables.section(tables.keep(facts))


def test_examples_in_the_runners_docstrings_hold(run, tables):
    for module in (run, tables):
        failed, tried = doctest.testmod(module)
        assert (failed, tried > 0) == (0, True)


def test_tables_replace_only_what_lies_between_the_markers(tables, tmp_path):
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- result -->\nold\nlines\n<!-- /result -->\nafter\n")
    assert tables.replace(page, "result", "new", check=True)
    assert "old" in page.read_text()
    assert tables.replace(page, "result", "new", check=False)
    assert page.read_text() == "before\n<!-- result -->\nnew\n<!-- /result -->\nafter\n"
    assert not tables.replace(page, "result", "new", check=True)
    with pytest.raises(SystemExit, match="claims"):
        tables.replace(page, "claims", "new", check=False)


def test_tables_check_ends_with_1_where_a_page_and_the_kept_results_differ(
    tables, tmp_path, monkeypatch, capsys
):
    (tmp_path / "temperature").mkdir()
    page, readme = tmp_path / "temperature" / "README.md", tmp_path / "README.md"
    page.write_text("<!-- result -->\n<!-- /result -->\n")
    readme.write_text("<!-- claims -->\n<!-- /claims -->\n")
    (tmp_path / "temperature" / "sweep.yaml").write_text("claim: tau = .07\n")
    kept = json.dumps(tables.keep(result(0.0123)))
    (tmp_path / "temperature" / "demo.json").write_text(kept)
    monkeypatch.setattr(tables, "HERE", tmp_path)
    monkeypatch.setattr(tables, "README", readme)
    monkeypatch.setattr(tables, "questions", lambda: ["temperature"])
    monkeypatch.setattr(tables, "own_module", lambda *_: None)
    arguments = ["tables.py", "--results", str(tmp_path / "none")]
    monkeypatch.setattr("sys.argv", arguments)
    tables.main()
    assert "+0.0123" in page.read_text()
    monkeypatch.setattr("sys.argv", [*arguments, "--check"])
    tables.main()
    page.write_text(page.read_text().replace("+0.0123", "+0.0321"))
    with pytest.raises(SystemExit, match=r"temperature/README\.md"):
        tables.main()


def test_what_guides_names_arms_and_draws_their_subjects(tmp_path):
    analyse = load(EXPERIMENTS / "what_guides" / "analyse.py")
    (tmp_path / "runs").mkdir()
    lines = ["file,subject,slice,method,anatomy,mask,psnr,haarpsi,nmse"]
    gains = {"unrolled": 0, "unrolled + image_same [encoder=vgg16]": 0.02, "tv": -0.1}
    for subject in range(8):
        for method, gain in gains.items():
            haarpsi = 0.7 + 0.01 * subject + gain
            lines.append(f'{subject}.h5,s{subject},0,"{method}",brain,m,30,{haarpsi},{0.1 - gain}')
    (tmp_path / "runs" / "metrics.csv").write_text("\n".join(lines) + "\n")
    rows = analyse.analyse(tmp_path)
    assert [(row["arm"], row["haarpsi"]) for row in rows] == [
        ("vgg16", "+0.0200 (8) p = 0.016"),  # 2 of 2**8 choices of signs, two arms
        ("tv alone", "-0.1000 (0) p = 0.016"),
    ]
    assert "brain, m, 8 subjects: better: vgg16; worse: tv alone" in analyse.outcome(rows)
    assert 2_000 < (tmp_path / analyse.PICTURE).stat().st_size < analyse.MAX_BYTES


def test_compressed_guidance_states_shares_of_the_gain(tmp_path):
    analyse = load(EXPERIMENTS / "compressed_guidance" / "analyse.py")
    (tmp_path / "runs").mkdir()
    lines = ["file,subject,slice,method,anatomy,mask,run,seconds,psnr,haarpsi"]
    trained = "unrolled as trained [model.checkpoint=/out/trained/brain/{}/checkpoints/last.ckpt]"
    guided = "unrolled + image_same"
    arms = {  # label -> gain, seconds
        "unrolled": (0, 20),
        "unrolled as trained [model.checkpoint=unrolled_mini]": (-0.1, 1),
        guided: (0.02, 60),
        f"{guided} [encoder=student, encoder.path=/out/student/brain]": (0.018, 24),
        f"{guided} [encoder=pruned, encoder.path=/out/pruned/brain]": (0.015, 40),
        trained.format("with"): (-0.04, 1),
        trained.format("without"): (-0.05, 1),
    }
    for subject in range(8):
        for label, (gain, seconds) in arms.items():
            score = 0.7 + 0.01 * subject + gain
            lines.append(f'a.h5,s{subject},0,"{label}",brain,m,r,{seconds},30,{score}')
    (tmp_path / "runs" / "metrics.csv").write_text("\n".join(lines) + "\n")
    for kind, new in (("student", 10e6), ("pruned", 30e6)):
        (tmp_path / kind / "brain").mkdir(parents=True)
        facts = {"measures": {"bytes": [90e6, new]}}
        (tmp_path / kind / "brain" / "encoder.json").write_text(json.dumps(facts))
    rows = {row["arm"]: row for row in analyse.analyse(tmp_path)}
    assert len(rows) == len(arms)
    shares = {arm: row.get("share of the gain") for arm, row in rows.items()}
    assert shares["student"] == pytest.approx(0.9)
    assert shares["pruned"] == pytest.approx(0.75)
    assert shares["trained with the prior, one pass"] == pytest.approx(0.5)
    assert shares["start, one pass"] is None
    assert rows["student"]["p"] == pytest.approx(4 * 2 / 2**8)  # 8 subjects, 4 arms
    assert rows["vgg16"]["encoder, MB of an image"] == 90
    assert rows["pruned"]["encoder, MB of an image"] == 30
    assert rows["student"]["seconds of a slice"] == 24
    said = analyse.outcome([*rows.values()])
    assert "student: 90 % of the gain in HaarPSI, 2.5 times as fast" in said
    assert "one pass: 50 % of the gain in HaarPSI, 60.0 times as fast" in said


def write_run(folder, wording, image):
    (folder / "reconstructions").mkdir(parents=True)
    with h5py.File(folder / "reconstructions" / "a.h5", "w") as file:
        file["reconstruction"], file["slices"] = image[None].astype("float32"), [3]
    settings = {"prompt": {"wording": wording}}
    record = Record(model="unrolled", prior="image_language", settings=settings)
    record.save(folder / "record.json")


def test_prompt_robustness_finds_the_deviation_over_wordings(tmp_path):
    analyse = load(EXPERIMENTS / "prompt_robustness" / "analyse.py")
    images = np.ones((2, 4, 4))
    images[1, 0, 0] = 1.2  # mean 1.1 and deviation 0.1 there, the maximum of the mean is 1.1
    for wording, image in enumerate(images):
        write_run(tmp_path / "runs" / str(wording), wording, image)
    found = analyse.analyse(tmp_path)
    assert found["largest pixel"] == pytest.approx(0.1 / 1.1, rel=1e-5)
    assert found["mean over pixels"] == pytest.approx(0.1 / 1.1 / 16, rel=1e-5)
    assert (found["slices"], found["wordings"]) == (1, 2)
    assert found["slices whose every pixel is below .02"] == 0
    assert (tmp_path / "deviation.png").is_file()


def test_embedding_margin_undoes_infonce_and_is_counted_beside_the_unguided_fit(tmp_path):
    analyse = load(EXPERIMENTS / "embedding_umap" / "analyse.py")
    positives, negatives = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.4, 0.3, 0.2]])
    loss = float(info_nce(positives, negatives, (0.07, 0.07)))
    compared = (positives / 0.07).logsumexp(1) - (negatives / 0.07).logsumexp(1)
    assert analyse.margin(loss) == pytest.approx(float(compared), rel=1e-4)
    for weight, end in ((1.0, 0.2), (0.0, 0.9)):
        folder = tmp_path / "runs" / str(weight)
        write_run(folder, 0, np.ones((4, 4)))
        settings = {"prior": {"name": "image_same", "weight": weight}}
        record = Record(model="unrolled", prior="image_same", settings=settings)
        record.save(folder / "record.json")
        lines = ["file,slice,iteration,name,value"]
        lines += [f"a.h5,3,{i},semantic_4,{value}" for i, value in ((0, 0.8), (15, end))]
        (folder / "fit.csv").write_text("\n".join(lines) + "\n")
    (row,) = analyse.analyse(tmp_path)
    assert (row["level"], row["subjects"]) == ("4", 1)
    assert row["guided: moved towards positives"] == 1
    assert row["watched: moved towards positives"] == 0
    assert row["guided: nearer to positives at the end"] == 1
    assert row["p, guided against watched"] == "fewer than 6 subjects"


def test_main_table_counts_slices_below_simple_methods(tmp_path):
    analyse = load(EXPERIMENTS / "main_table" / "analyse.py").analyse
    (tmp_path / "runs").mkdir()
    lines = ["file,slice,method,anatomy,mask,psnr,ssim"]
    for method, values in {"zero_filled": [2, 2, 2], "unrolled": [1, 3, 2]}.items():
        lines += [f"{i}.h5,0,{method},brain,m,{v},{v}" for i, v in enumerate(values)]
    (tmp_path / "runs" / "metrics.csv").write_text("\n".join(lines) + "\n")
    below = [row for row in analyse(tmp_path) if row["method"] == "unrolled"]
    assert [(row["slices"], row["n"], row["below"]) for row in below] == [(1, 3, "zero_filled")] * 2
