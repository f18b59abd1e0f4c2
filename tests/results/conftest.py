"""Runs without files, of a record and a label; and a whole run folder."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from mrisem.results.record import Record
from mrisem.results.run import Run

DEAR = ("ssim", "haarpsi", "lpips", "dists", "hfen", "vif", "tenengrad", "tenengrad_distance")


def record_of(method="unrolled", words=(), anatomy="brain", mask="gaussian", rate=4, **more):
    """A record whose settings are those of the command line, over defaults."""
    model, _, prior = method.partition(" + ")
    settings = {"data": {"name": anatomy}, "mask": {"name": mask, "acceleration": float(rate)}}
    settings |= {"model": {"name": model}, "prior": {"name": prior or "none"}, "seed": 0}
    settings |= more
    settings["prior"] = settings["prior"] | {"name": prior or "none"}
    for word in words:
        key, _, value = word.partition("=")
        if key in ("mask", "mask.acceleration", "output_dir"):
            continue
        *above, last = key.split(".")
        place = settings
        for part in above:
            place = place.setdefault(part, {})
        place[last] = (
            {"name": value} if isinstance(place.get(last), dict) else yaml.safe_load(value)
        )
    facts = {"model": model, "prior": prior or None, "anatomy": anatomy, "mask": mask}
    facts |= {"acceleration": (rate,), "overrides": tuple(words), "settings": settings}
    return Record(**facts)


@pytest.fixture
def make_record():
    return record_of


@pytest.fixture
def make_run():
    def made(name, words=(), method="unrolled", files=("a.h5",), **more):
        folder = Path("/runs") / name
        paths = tuple(folder / "reconstructions" / file for file in files)
        record = record_of(method, words, **more)
        return Run(folder, paths, record, record.method)

    return made


@pytest.fixture
def labelled(make_run):
    """Make runs of these labels, ``method [settings]``."""

    def made(*labels, **more):
        runs = []
        for index, label in enumerate(labels):
            method, _, words = label.partition(" [")
            listed = [word for word in words.removesuffix("]").split(", ") if word]
            run = make_run(str(index), listed, method, **more)
            runs.append(replace(run, label=label))
        return runs

    return made


@pytest.fixture(scope="session")
def run_folders_in():
    """Return what makes run folders with files, of the tests of verbs."""
    path = Path(__file__).parents[1] / "verbs" / "conftest.py"
    spec = importlib.util.spec_from_file_location("verbs_conftest", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RunFolders


@pytest.fixture(scope="session")
def verbs():
    """Evaluate a folder, and report it, in this process with few scores."""
    from mrisem.config.compose import compose
    from mrisem.verbs import evaluate, report

    class Verbs:
        @staticmethod
        def evaluate(folder, *more):
            few = [f"~metrics.{name}" for name in DEAR]
            return evaluate.run(compose("evaluate", [f"output_dir={folder}", *few, *more]))

        @staticmethod
        def report(folder, *more):
            where = [f"output_dir={folder}/report", f"runs=[{folder}]"]
            return report.run(compose("report", [*where, *more]))

    return Verbs


@pytest.fixture(scope="session")
def whole_run(run_folders_in, verbs, tmp_path_factory):
    """A folder with a run with a prior beside one without, and all that a run can hold; evaluated.

    The runs lie in ``runs``, the targets in ``data``.
    """
    folders = run_folders_in(tmp_path_factory.mktemp("whole"))
    targets = folders.targets(files=("a.h5",), n_slices=2)
    with h5py.File(targets / "a.h5", "a") as file:
        file["lesions"] = np.zeros((2, 24, 20), np.uint8)
        file["lesions"][1, 8:12, 8:12] = 1
    rng = np.random.default_rng(0)
    for name, method in (("1", "unrolled"), ("2", "unrolled + image_same")):
        run = folders.add(name, method)
        with h5py.File(run / "reconstructions/a.h5", "a") as file:
            file["image"] = rng.normal(size=(2, 24, 20)).astype(np.complex64)
            file["mask"] = np.ones((2, 24, 20), bool)
            file["coarse_maps"] = np.ones((2, 1, 64, 64), np.complex64)
            file.attrs["failed"] = json.dumps([{"slices": [7], "message": "it diverged"}])
        gone = [{"file": "gone.h5", "slices": [], "message": "it is cut short"}]
        (run / "failed.json").write_text(json.dumps(gone))
    folders.add_curves(run)
    (run / "embeddings/a.h5").mkdir(parents=True)
    arrays = {"iterations": np.arange(3), "path_1": rng.normal(size=(3, 4)).astype("f4")}
    arrays |= {f"{side}_1": np.eye(2, 4, dtype="f4") + shift
               for shift, side in enumerate(("positives", "negatives"))}  # fmt: skip
    np.savez(run / "embeddings/a.h5/0.npz", **arrays, zero_filled_1=np.ones(4, "f4"))
    verbs.evaluate(folders.runs)
    verbs.report(folders.runs)
    return folders.root


@pytest.fixture
def copy(whole_run, tmp_path):
    """A copy of the folder of runs that may be spoilt."""
    folder = tmp_path / "runs"
    shutil.copytree(whole_run / "runs", folder)
    return folder
